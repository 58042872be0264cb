"""Test beds: models and activations whose truth is known."""

from workbench.testbeds.truth import TESTBEDS, TestBed, make_testbed

__all__ = ["TESTBEDS", "TestBed", "make_testbed"]
