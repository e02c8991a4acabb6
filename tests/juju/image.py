#!/usr/bin/env python3
"""Makes the one image of all stand-ins' workloads, from the programs of the tests' services.

  image.py OUT.tar NAME:TAG JAVA_HOME KAFKA_JARS MINIO PG_BIN

It has Bash and the usual commands, Java at /opt/java, Kafka's jars at /opt/kafka, MinIO at /opt/minio,
PostgreSQL at /usr/lib/postgresql/bin (with its shared files where it looks for them), the time
zones, and the libraries that ldd names. `ctr images import` and `docker load` take the file.
"""
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile

out, name, java, kafka, minio, postgres = sys.argv[1:]
COMMANDS = """awk base64 bash cat chmod chown cp cut date dd echo env false find grep head hostname id kill ln ls mkdir mktemp mv od printf
    readlink rm sed seq sh sleep sort stat tail tee test touch tr true uname wc xargs""".split()
USERS = {"root": 0, "kafka": 10001, "postgres": 10002, "minio": 10003}
TEXTS = {
    "etc/passwd": "".join(f"{user}:x:{uid}:{uid}::/tmp:/bin/bash\n" for user, uid in USERS.items()),
    "etc/group": "".join(f"{user}:x:{uid}:\n" for user, uid in USERS.items()),
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}

files = {}  # the path in the image, without a slash at its beginning: the file here


def add(source, path):
    files[path.lstrip("/")] = os.path.realpath(source)


def add_tree(source, path, without=()):
    for folder, folders, names in os.walk(source, followlinks=True):
        folders[:] = sorted(f for f in folders if os.path.relpath(os.path.join(folder, f), source) not in without)
        for each in sorted(names):
            inner = os.path.relpath(os.path.join(folder, each), source)
            if inner not in without and os.path.exists(os.path.join(folder, each)):
                add(os.path.join(folder, each), os.path.join(path, inner))


for command in COMMANDS:
    add(subprocess.run(["which", command], check=True, capture_output=True, text=True).stdout.strip(), f"/usr/bin/{command}")
add_tree(java, "/opt/java", {"jmods", "demo", "include", "man", "legal", "docs", "lib/src.zip", "lib/ct.sym"})
for jar in os.listdir(kafka):
    if jar.endswith(".jar"):
        add(os.path.join(kafka, jar), f"/opt/kafka/{jar}")
add(minio, "/opt/minio/minio")


def told(what):
    return subprocess.run([os.path.join(postgres, "pg_config"), what], check=True, capture_output=True, text=True).stdout.strip()


# PostgreSQL finds what it shares from where its program is.
add_tree(postgres, postgres)
add_tree(told("--pkglibdir"), told("--pkglibdir"), {"bitcode", "llvmjit.so"})
add_tree(told("--sharedir"), told("--sharedir"), {"man", "doc"})
add_tree("/usr/share/zoneinfo", "/usr/share/zoneinfo", {"right", "posix"})

ELF = b"\x7fELF"
for source in list(files.values()):
    with open(source, "rb") as file:
        if file.read(4) != ELF:
            continue
    needs = subprocess.run(["ldd", source], capture_output=True, text=True).stdout
    for line in needs.splitlines():
        found = [word for word in line.split() if word.startswith("/")]
        # Java's own libraries find each other where they lie.
        if found and not os.path.realpath(found[0]).startswith(os.path.realpath(java)):
            add(found[0], found[0])


def entry(path, mode=0o755, kind=tarfile.DIRTYPE):
    one = tarfile.TarInfo(path)
    one.type, one.mode = kind, mode
    return one


layer = io.BytesIO()
with tarfile.open(fileobj=layer, mode="w") as tar:
    for top in ("bin", "lib", "lib64"):
        if not os.path.islink("/" + top):
            continue
        link = entry(top, 0o777, tarfile.SYMTYPE)
        link.linkname = os.readlink("/" + top)
        tar.addfile(link)
    for folder, mode in (("tmp", 0o1777), ("etc", 0o755), ("root", 0o700), ("var/lib", 0o755)):
        tar.addfile(entry(folder, mode))
    link = entry("usr/lib/postgresql/bin", 0o777, tarfile.SYMTYPE)
    link.linkname = postgres
    tar.addfile(link)
    for path, text in TEXTS.items():
        one = entry(path, 0o644, tarfile.REGTYPE)
        one.size = len(text)
        tar.addfile(one, io.BytesIO(text.encode()))
    for path, source in sorted(files.items()):
        for top in ("bin", "lib", "lib64"):
            if os.path.islink("/" + top) and path.startswith(top + "/"):
                path = os.path.join(os.readlink("/" + top), path[len(top) + 1 :])
        one = entry(path, os.stat(source).st_mode & 0o755 | 0o444, tarfile.REGTYPE)
        one.size = os.stat(source).st_size
        with open(source, "rb") as file:
            tar.addfile(one, file)
layer = layer.getvalue()
digest = hashlib.sha256(layer).hexdigest()
config = json.dumps(
    {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine],
        "os": "linux",
        "config": {"Env": ["PATH=/usr/bin:/bin"], "Cmd": ["/bin/bash"]},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + digest]},
    }
).encode()
config_name = hashlib.sha256(config).hexdigest() + ".json"
manifest = json.dumps([{"Config": config_name, "RepoTags": [name], "Layers": [digest + "/layer.tar"]}]).encode()
with tarfile.open(out + ".new", "w") as tar:
    for path, data in ((digest + "/layer.tar", layer), (config_name, config), ("manifest.json", manifest)):
        one = entry(path, 0o644, tarfile.REGTYPE)
        one.size = len(data)
        tar.addfile(one, io.BytesIO(data))
os.replace(out + ".new", out)
print(f"{name}: {len(layer) >> 20} MiB, {len(files)} files", file=sys.stderr)
