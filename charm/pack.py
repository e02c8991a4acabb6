#!/usr/bin/env python3
"""Makes windrow-k8s_amd64.charm, the file that `juju deploy` takes: builds the two programs and zips what Juju reads.

It needs no LXD and no charmcraft; ARCHITECTURE.md, "The charm's file", says why it builds as it does. The same input
gives the same bytes.
"""

import fcntl
import hashlib
import os
import pathlib
import stat
import subprocess
import sys
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
PARTS = pathlib.Path(os.environ.get("WINDROW_PARTS") or pathlib.Path.home() / ".cache/windrow-parts")

TRIPLE = "x86_64-unknown-linux-gnu"
GLIBC = "2.35"  # Ubuntu 22.04's, the base in charmcraft.yaml
ZIG = ("ziglang==0.15.2", "cargo-zigbuild==0.24.0")
# As charmcraft names it: the platform in charmcraft.yaml.
CHARM = ROOT / "windrow-k8s_amd64.charm"

# What charmcraft would write of charmcraft.yaml, without its own version, as it had no part in this.
MANIFEST = """\
bases:
- name: ubuntu
  channel: '22.04'
  architectures:
  - amd64
"""


def venv(name, requirements):
    """A folder with these Python packages in it, made once and again when the requirements are others.

    Raises subprocess.CalledProcessError where they cannot be installed.
    """
    folder = PARTS / name
    PARTS.mkdir(parents=True, exist_ok=True)
    with open(PARTS / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp, wanted = folder / "stamp", " ".join(requirements)
        if not stamp.exists() or stamp.read_text() != wanted:
            print(f"python packages: {wanted}", file=sys.stderr)
            subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
            pip = [folder / "bin/pip", "-q", "--disable-pip-version-check", "install", *requirements]
            subprocess.run(pip, check=True)
            stamp.write_text(wanted)
    return folder


def compilers(tools):
    """Zig as a C and a C++ compiler for librdkafka, whose `configure` knows no other way to be told than CC and CXX.

    With the machine's own compiler it would be made for the machine's own glibc.
    """
    found = {}
    for variable, language in (("CC", "cc"), ("CXX", "c++")):
        path = tools / f"bin/zig-{variable.lower()}"
        zig = f'exec "{tools}/bin/cargo-zigbuild" zig {language} --'
        flags = f"-target {TRIPLE.replace('-unknown', '')}.{GLIBC} -fno-sanitize=all -Wl,--undefined-version"
        # Zig refuses a version of glibc beside --version, which `configure` asks for first. And its linker refuses a
        # list of exported symbols that names one that is not there, as that of the shared librdkafka does.
        text = f'#!/bin/sh\n[ "$1" = --version ] && {zig} --version\n{zig} {flags} "$@"\n'
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            path.chmod(0o755)
        found[variable] = str(path)
    return found


def build():
    """Builds the program and the charm's `dispatch` for GLIBC and answers where they are."""
    try:
        import ensurepip  # noqa: F401  venv fails without it, after it has begun

        tools = venv("zig", ZIG)
    except ImportError:
        sys.exit("missing: venv of Python; run: sudo apt-get install python3-venv")
    except subprocess.CalledProcessError as error:
        sys.exit(f"cannot install {', '.join(ZIG)}: {error}; look at the lines above")
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
    crates = pathlib.Path(os.environ.get("CARGO_HOME") or pathlib.Path.home() / ".cargo") / "registry/src"
    # The texts of panics name source files: without the folders of whoever packs.
    flags = [f"--remap-path-prefix={crates}=/crates", f"--remap-path-prefix={ROOT}=/windrow"]
    environment = {
        **os.environ,
        "PATH": f"{tools}/bin:{os.environ['PATH']}",
        "CARGO_ENCODED_RUSTFLAGS": "\x1f".join(flags),
        **compilers(tools),
    }
    what = ["-p", "windrow", "--bin", "windrow", "-p", "windrow-charm", "--bin", "dispatch"]
    command = ["cargo", "zigbuild", "--locked", "--release", "--target", f"{TRIPLE}.{GLIBC}", *what]
    if subprocess.run(command, cwd=ROOT, env=environment).returncode:
        sys.exit("cannot build the charm's programs; the lines above say why")
    return target / TRIPLE / "release"


def content(programs):
    """What the charm holds: name → (mode, bytes)."""
    windrow = (programs / "windrow").read_bytes()
    files = {
        "dispatch": (0o755, (programs / "dispatch").read_bytes()),
        "manifest.yaml": (0o644, MANIFEST.encode()),
        "windrow": (0o755, windrow),
        "windrow.sha256": (0o644, f"{hashlib.sha256(windrow).hexdigest()}\n".encode()),
    }
    for name in ("LICENSE", "actions.yaml", "config.yaml", "icon.svg", "metadata.yaml"):
        files[name] = (0o644, (ROOT / name).read_bytes())
    return files


def write(files, path):
    """Writes a zip of them that depends on nothing else: no clock, no order of a directory, no umask."""
    part = path.with_name(f".{path.name}.part")
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as charm:
        for name, (mode, data) in sorted(files.items()):
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3  # Unix: Juju takes the mode from the upper half of the attributes
            entry.external_attr = (stat.S_IFREG | mode) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            charm.writestr(entry, data)
    part.replace(path)


def main():
    files = content(build())
    write(files, CHARM)
    for name, (mode, data) in sorted(files.items()):
        print(f"{mode:o} {len(data):>10} {name}")
    print(f"{CHARM.name}: {CHARM.stat().st_size} bytes")


if __name__ == "__main__":
    main()
