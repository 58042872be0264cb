"""One HTML file that opens by double-click with no network, and that cannot be made to run foreign code.

The Vega bundle is inlined once; panels are the same ES modules as in JupyterLab, loaded from a Blob by
`page/host.js`. The page's own content-security policy forbids every connection. It allows inline scripts
by their SHA-256 (browsers then ignore 'unsafe-inline', which older ones need), so markup that a hostile
corpus smuggled in would not run even if an escape were forgotten. 'unsafe-eval' is for Vega's expressions.

Text of corpora and models enters through Jinja's autoescape, through JSON whose `<`, `>` and `&` are
escaped, or through `textContent`; nowhere else.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from workbench.panels.assets import asset

PAGE = Path(__file__).resolve().parent / "page"
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval' blob: {hashes}; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:"
)
_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def plain(value: Any) -> Any:
    """A value as JSON can hold it: bytes as {"$bytes": base64}, numpy scalars as numbers, NaN as null."""
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode("ascii")}
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if hasattr(value, "item"):
        return plain(value.item())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def embedded_json(value: Any) -> str:
    """JSON for a `<script type="application/json">`: no character in it can end the element."""
    text = json.dumps(plain(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return "".join(_ESCAPES.get(character, character) for character in text)


def checked_script(text: str, name: str) -> str:
    """A script that may stand inline.

    Raises:
        ValueError: If it holds something that would end or change the script element.
    """
    lowered = text.lower()
    for forbidden in ("</script", "<!--", "\r", "\x00"):
        if forbidden in lowered:
            raise ValueError(f"script {name!r} holds {forbidden!r}, so it cannot stand inline")
    return text


def script_hash(text: str) -> str:
    """The source expression that allows exactly this inline script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}'"


@cache
def page_scripts() -> tuple[str, ...]:
    """The page's scripts: the Vega bundle, the chart drawer, the panel host."""
    import vl_convert

    bundle = vl_convert.javascript_bundle()  # pyright: ignore[reportCallIssue]
    bundle = bundle.replace("\r\n", "\n").replace("\r", "\n")
    own = [(PAGE / name).read_text(encoding="utf-8") for name in ("charts.js", "host.js")]
    return tuple(
        checked_script(text, name)
        for text, name in zip((bundle, *own), ("vega", "charts.js", "host.js"), strict=True)
    )


def render_page(
    context: Mapping[str, Any],
    *,
    charts: Mapping[str, Any],
    spots: list[dict[str, Any]],
    pools: Mapping[str, Any],
) -> str:
    """The page as text.

    Args:
        context: What the template shows.
        charts: Vega-Lite specifications by element id.
        spots: Panels as {id, module, state}.
        pools: Values that several panels share.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PAGE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    modules = sorted({spot["module"] for spot in spots})
    sources = {name: asset(name, "panel.js").read_text(encoding="utf-8") for name in modules}
    styles = [(PAGE / "report.css").read_text(encoding="utf-8")]
    styles += [asset(name, "panel.css").read_text(encoding="utf-8") for name in modules]
    scripts = page_scripts()
    return environment.get_template("report.html.j2").render(
        **context,
        policy=POLICY.format(hashes=" ".join(map(script_hash, scripts))),
        style="\n".join(styles),
        scripts=scripts,
        charts_json=embedded_json(charts),
        panels_json=embedded_json({"modules": sources, "pools": pools, "spots": spots}),
    )
