"""Decides, without importing torch, whether the build compiles anything and with which C++ compiler.

BCOS_KERNELS_BUILD: "1" (default) or "0" (nothing compiled: the operators run in plain PyTorch).
"""

import os
import shlex
import shutil

MESSAGE = """bcos-kernels: no C++ compiler found (looked for {wanted}). Install one:
  Debian, Ubuntu   apt-get install g++
  Fedora           dnf install gcc-c++
  macOS            xcode-select --install
and repeat the command. Or install without compiled kernels (the same results from plain PyTorch, slower):
  set BCOS_KERNELS_BUILD=0"""


def build_wanted() -> bool:
    """Whether BCOS_KERNELS_BUILD asks for compiled kernels."""
    value = os.environ.get("BCOS_KERNELS_BUILD", "1").lower() or "1"
    if value not in ("0", "1"):
        raise SystemExit(f"BCOS_KERNELS_BUILD: expected 0 or 1, got {value!r}")
    return value == "1"


def require_compiler() -> str:
    """The compiler the build will call, as CXX says it; ends the build with one message where there is none.

    torch's builder calls CXX or else `c++`; where only g++ or clang++ exists, CXX is set to it.
    """
    given = os.environ.get("CXX", "")
    for name in [given] if given else ["c++", "g++", "clang++"]:
        words = shlex.split(name)
        if words and shutil.which(words[0]):
            if not given and name != "c++":
                os.environ["CXX"] = name
            return name
    raise SystemExit(MESSAGE.format(wanted=f"CXX={given}" if given else "c++, g++, clang++"))  # no traceback
