"""From a model and a text, or an array, to activations on disk or in memory."""

from workbench.capture.arrays import import_array
from workbench.capture.live import LiveStore
from workbench.capture.options import DEFAULT_HOOK, CaptureOptions
from workbench.capture.origin import check_captured_model, load_captured_model
from workbench.capture.repair import Damage, merge_parts, repair_stores, verify_stores
from workbench.capture.stage import capture
from workbench.capture.where import captured_hooks, open_store, store_folder

__all__ = [
    "DEFAULT_HOOK",
    "CaptureOptions",
    "Damage",
    "LiveStore",
    "capture",
    "captured_hooks",
    "check_captured_model",
    "import_array",
    "load_captured_model",
    "merge_parts",
    "open_store",
    "repair_stores",
    "store_folder",
    "verify_stores",
]
