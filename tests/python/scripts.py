# Loading and running the repository's programs from unit tests.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Loading and running the repository's programs from unit tests."""

import importlib.util
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent.parent


def load(path: str) -> ModuleType:
    """Import a program without .py ending, such as 'base/assemble'."""
    name = path.replace('/', '_').replace('-', '_')
    loader = SourceFileLoader(name, str(ROOT / path))
    spec = importlib.util.spec_from_loader(name, loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    keep, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = keep
    return module


def run(argv: list, **more) -> subprocess.CompletedProcess:
    """Run a program to its end, at most a minute."""
    return subprocess.run([str(a) for a in argv], capture_output=True,
                          text=True, timeout=60, check=False, **more)
