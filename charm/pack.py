#!/usr/bin/env python3
"""Makes windrow-k8s_amd64.charm, the file that `juju deploy` takes.

It builds the two programs and zips them with what Juju reads. It needs neither LXD nor charmcraft;
ARCHITECTURE.md, "The charm's file", says why it builds as it does. The same input gives the same
bytes.
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
CACHE = pathlib.Path.home() / ".cache/windrow-parts"
PARTS = pathlib.Path(os.environ.get("WINDROW_PARTS") or CACHE)

TRIPLE = "x86_64-unknown-linux-gnu"
GLIBC = "2.35"  # that of Ubuntu 22.04, the base in charmcraft.yaml
# These build what users run. So their wheels for Linux on amd64 and arm64 are pinned by content.
ZIG = (
    "ziglang==0.15.2"
    " --hash=sha256:806316453d1ede7174ed3fefb8e5348154629089c3bb5fe812dfd0e172fac130"
    " --hash=sha256:edc0aa60ec964a4cf462d40f68d7de242ddf37fd9a80f2afaee6397059463230",
    "cargo-zigbuild==0.24.0"
    " --hash=sha256:484412e39e4c6039474535ce97ee75a22bab22d58233056f8ec8a8f9034bb957"
    " --hash=sha256:6942e4320f7b05d8fb29e0a8ce5670bcbb3d254275100b85b5b7c86552f9a744",
)
# The name that charmcraft gives it, with the platform in charmcraft.yaml.
CHARM = ROOT / "windrow-k8s_amd64.charm"

# What charmcraft would write, from charmcraft.yaml. It leaves out charmcraft's own version, because
# charmcraft had no part in this.
MANIFEST = """\
bases:
- name: ubuntu
  channel: '22.04'
  architectures:
  - amd64
"""


def venv(name, requirements):
    """Makes a folder with these Python packages, unless it is there with the same requirements.

    Each is a line of a requirements file. With a hash in one of them, pip takes no package whose
    hash is not in one of the lines.

    Raises subprocess.CalledProcessError when they cannot be installed.
    """
    folder = PARTS / name
    PARTS.mkdir(parents=True, exist_ok=True)
    with open(PARTS / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp, wanted = folder / "stamp", "\n".join(requirements)
        if not stamp.exists() or stamp.read_text() != wanted:
            names = ", ".join(line.split()[0] for line in requirements)
            print(f"python packages: {names}", file=sys.stderr)
            subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
            lines = folder / "requirements.txt"
            lines.write_text(wanted)
            pip = [folder / "bin/pip", "-q", "--disable-pip-version-check", "install"]
            subprocess.run([*pip, "-r", lines], check=True)
            stamp.write_text(wanted)
    return folder


def compilers(tools):
    """Makes Zig the C and C++ compiler for librdkafka, whose `configure` reads CC and CXX alone.

    With the machine's own compiler, librdkafka would need the machine's own glibc.
    """
    found = {}
    for variable, language in (("CC", "cc"), ("CXX", "c++")):
        path = tools / f"bin/zig-{variable.lower()}"
        zig = f'exec "{tools}/bin/cargo-zigbuild" zig {language} --'
        triple = TRIPLE.replace("-unknown", "")
        flags = f"-target {triple}.{GLIBC} -fno-sanitize=all -Wl,--undefined-version"
        # Zig refuses a glibc version beside --version, which `configure` asks for first. And its
        # linker refuses a list of exported symbols with a missing one, and the list of the shared
        # librdkafka has one.
        text = f'#!/bin/sh\n[ "$1" = --version ] && {zig} --version\n{zig} {flags} "$@"\n'
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            path.chmod(0o755)
        found[variable] = str(path)
    return found


def build():
    """Builds the program and the charm's `dispatch` for GLIBC, and gives the folder they are in."""
    try:
        import ensurepip  # noqa: F401  without it, venv would fail halfway

        tools = venv("zig", ZIG)
    except ImportError:
        sys.exit("missing: venv of Python; run: sudo apt-get install python3-venv")
    except subprocess.CalledProcessError as error:
        sys.exit(f"cannot install Zig and cargo-zigbuild: {error}; look at the lines above")
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
    cargo = pathlib.Path(os.environ.get("CARGO_HOME") or pathlib.Path.home() / ".cargo")
    # The texts of panics name source files. They should not name the folders of whoever packs.
    flags = [
        f"--remap-path-prefix={cargo / 'registry/src'}=/crates",
        f"--remap-path-prefix={ROOT}=/windrow",
    ]
    environment = {
        **os.environ,
        "PATH": f"{tools}/bin:{os.environ['PATH']}",
        "CARGO_ENCODED_RUSTFLAGS": "\x1f".join(flags),
        **compilers(tools),
    }
    command = ["cargo", "zigbuild", "--locked", "--release", "--target", f"{TRIPLE}.{GLIBC}"]
    programs = ["-p", "windrow", "--bin", "windrow", "-p", "windrow-charm", "--bin", "dispatch"]
    if subprocess.run([*command, *programs], cwd=ROOT, env=environment).returncode:
        sys.exit("cannot build the charm's programs; the lines above say why")
    return target / TRIPLE / "release"


def content(programs):
    """Gives what the charm holds: name → (mode, bytes)."""
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
    """Writes a zip that depends on the files alone, not on a clock, a folder's order or a umask."""
    part = path.with_name(f".{path.name}.part")
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as charm:
        for name, (mode, data) in sorted(files.items()):
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3  # Unix: Juju takes the mode from the attributes' upper half
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
