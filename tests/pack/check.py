#!/usr/bin/env python3
"""Reads the packed charm as Juju, charmcraft and a bare Ubuntu do. `make test-pack` packs it first.

Where charmcraft cannot be installed, what needs its schema is skipped; where neither root nor user
namespaces are there, what needs a root directory of its own is skipped. A line says so each time.
"""

import contextlib
import json
import os
import pathlib
import re
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import unittest
import xml.etree.ElementTree
import zipfile

sys.dont_write_bytecode = True
ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "charm"))
import pack  # noqa: E402

CHARMCRAFT = ("charmcraft==4.5.0",)
MODES = {
    "LICENSE": 0o644,
    "actions.yaml": 0o644,
    "config.yaml": 0o644,
    "dispatch": 0o755,
    "icon.svg": 0o644,
    "manifest.yaml": 0o644,
    "metadata.yaml": 0o644,
    "windrow": 0o755,
    "windrow.sha256": 0o644,
}
# What every Ubuntu image has: glibc's own, and the unwinder.
LIBRARIES = {"ld-linux-x86-64.so.2", "libc.so.6", "libgcc_s.so.1", "libm.so.6"}
DEADLINE_S = 60


def unpacked():
    """The charm as Juju lays it out, in a folder that the caller removes."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="windrow-pack-"))
    with zipfile.ZipFile(pack.CHARM) as charm:
        for entry in charm.infolist():
            path = folder / charm.extract(entry, folder)
            path.chmod(entry.external_attr >> 16 & 0o777)
    return folder


class Unpacked(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.charm = unpacked()
        cls.addClassCleanup(shutil.rmtree, cls.charm)


class TheFile(Unpacked):
    def test_holds_these_files_with_these_modes_and_nothing_else(self):
        with zipfile.ZipFile(pack.CHARM) as charm:
            self.assertIsNone(charm.testzip())
            attributes = {entry.filename: entry.external_attr >> 16 for entry in charm.infolist()}
        self.assertEqual(attributes, {name: stat.S_IFREG | mode for name, mode in MODES.items()})
        print(f"\n{pack.CHARM.name}: {pack.CHARM.stat().st_size} bytes")

    def test_same_input_gives_the_same_bytes(self):
        again = self.charm.with_suffix(".charm")
        self.addCleanup(again.unlink)
        pack.write({name: (mode, (self.charm / name).read_bytes()) for name, mode in MODES.items()}, again)
        self.assertEqual(again.read_bytes(), pack.CHARM.read_bytes())

    def test_digest_is_that_of_the_program(self):
        import hashlib

        digest = hashlib.sha256((self.charm / "windrow").read_bytes()).hexdigest()
        self.assertEqual((self.charm / "windrow.sha256").read_text(), f"{digest}\n")

    def test_icon_is_square(self):
        icon = xml.etree.ElementTree.parse(self.charm / "icon.svg").getroot()
        self.assertEqual((icon.get("width"), icon.get("height"), icon.get("viewBox")), ("100", "100", "0 0 100 100"))


class ThePrograms(Unpacked):
    def readelf(self, what, program):
        return subprocess.run(
            ["readelf", "-W", what, self.charm / program], check=True, capture_output=True, text=True
        ).stdout

    def test_want_no_library_that_an_image_may_not_have(self):
        for program in ("dispatch", "windrow"):
            needed = set(re.findall(r"\(NEEDED\).*\[(.*)\]", self.readelf("-d", program)))
            print(f"\n{program}: {' '.join(sorted(needed))}", end="")
            self.assertIn("libc.so.6", needed)
            self.assertLessEqual(needed, LIBRARIES, program)

    def test_want_no_symbol_that_ubuntu_22_04_does_not_have(self):
        for program in ("dispatch", "windrow"):
            versions = re.findall(r"Name: GLIBC_(\d+)\.(\d+)", self.readelf("-V", program))
            newest = max((int(major), int(minor)) for major, minor in versions)
            print(f"\n{program}: GLIBC_{newest[0]}.{newest[1]}", end="")
            self.assertLessEqual(newest, tuple(int(part) for part in pack.GLIBC.split(".")), program)

    def test_name_no_folder_of_whoever_packed(self):
        for program in ("dispatch", "windrow"):
            text = (self.charm / program).read_bytes()
            for folder in (ROOT, pathlib.Path.home(), pack.PARTS):
                found = set(re.findall(re.escape(f"{folder}/".encode()) + rb"[\w./+-]*", text))
                # OpenSSL keeps where its plug-ins would lie (there are none) and what compiled it.
                openssl = rb"/(engines-3|ossl-modules|zigcc-[^/]*)$"
                found = {path for path in found if not re.search(openssl, path)}
                self.assertFalse(found, program)


class Listener:
    """A port on loopback that hears what a client says first, and may have to say yes before that."""

    def __init__(self, question=b"", answer=b""):
        self.heard = b""
        self.done = threading.Event()
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self.hear, args=(question, answer), daemon=True).start()

    def hear(self, question, answer):
        while not self.done.is_set():
            try:
                client, _ = self.socket.accept()
            except OSError:
                return
            with client, contextlib.suppress(OSError):
                client.settimeout(DEADLINE_S)
                if question and client.recv(len(question), socket.MSG_WAITALL) != question:
                    continue
                client.sendall(answer)
                self.heard = client.recv(3, socket.MSG_WAITALL)
                if self.heard:
                    self.done.set()


class InABareRoot(Unpacked):
    """With glibc's files, the programs and nothing else: no /etc, so no CA certificates; no OpenSSL; no /proc, no /dev."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.root = cls.charm / "root"
        for folder in ("opt", "tmp", "settings"):
            (cls.root / folder).mkdir(parents=True)
        for program in ("dispatch", "windrow"):
            shutil.copy(cls.charm / program, cls.root / "opt")
            listed = subprocess.run(["ldd", cls.charm / program], check=True, capture_output=True, text=True).stdout
            for library in re.findall(r"(/\S+) \(0x", listed):
                there = cls.root / library[1:]
                there.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(library, there)
        # Root may change its root; anybody else needs a user namespace in which to be root.
        chroot = [shutil.which("chroot") or "/usr/sbin/chroot", cls.root]
        cls.enter = chroot if os.geteuid() == 0 else ["unshare", "-r", *chroot]
        try:
            subprocess.run([*cls.enter, "/opt/windrow", "--version"], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            said = getattr(error, "stderr", None) or str(error).encode()
            if b"unshare" in said or b"Operation not permitted" in said:
                raise unittest.SkipTest(f"needs root or user namespaces: {said.decode().strip()}")
            raise AssertionError(f"cannot start windrow in a bare root: {said.decode()}")

    def start(self, *arguments):
        return subprocess.Popen(
            [*self.enter, *arguments],
            env={"TMPDIR": "/tmp"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def says(self, *arguments):
        process = self.start(*arguments)
        said, _ = process.communicate(timeout=DEADLINE_S)
        self.assertEqual(process.returncode, 0, said)
        return said

    def settings(self, name, text):
        (self.root / "settings" / name).write_text(text)
        secrets = self.root / "settings/secrets.yaml"
        secrets.write_text("".join(f'{key}: "made-up"\n' for key in SECRETS))
        secrets.chmod(0o600)
        return f"/settings/{name}"

    def greets(self, listener, config):
        """Whether windrow, run with these settings, begins a TLS handshake there: its roots were read and parsed."""
        process = self.start("/opt/windrow", "run", "--config", config)
        try:
            listener.done.wait(DEADLINE_S)
        finally:
            process.terminate()
            said, _ = process.communicate(timeout=DEADLINE_S)
            listener.done.set()
            listener.socket.close()
        # RFC 8446, 5.1: a handshake record of TLS.
        self.assertEqual(listener.heard[:2], b"\x16\x03", said)

    def test_windrow_says_its_version(self):
        self.assertRegex(self.says("/opt/windrow", "--version"), r"^windrow \d+\.\d+\.\d+")

    def test_dispatch_is_loaded(self):
        process = self.start("/opt/dispatch")
        said, _ = process.communicate(timeout=DEADLINE_S)
        # Without Juju it has nothing to do; the loader's own failure is 127, and a shell's is 126.
        self.assertIn(process.returncode, (0, 1, 2), said)

    def test_windrow_counts_into_a_table(self):
        said = self.says("/opt/windrow", "demo", "--for", "3s", "--rate", "1000")
        self.assertIn("counted", said)

    def test_windrow_checks_settings(self):
        config = self.settings("checked.yaml", WITH_TABLE.format(kafka=1, postgres=1, s3=1))
        self.says("/opt/windrow", "check-config", "--config", config)

    def test_windrow_greets_kafka_with_tls(self):
        kafka = Listener()
        self.greets(kafka, self.settings("kafka.yaml", CONSOLE.format(kafka=kafka.port)))

    def test_windrow_greets_postgresql_with_tls(self):
        # PostgreSQL's SSLRequest, and its yes.
        postgres = Listener(bytes.fromhex("0000000804d2162f"), b"S")
        self.greets(postgres, self.settings("postgres.yaml", WITH_TABLE.format(kafka=1, postgres=postgres.port, s3=1)))


SECRETS = (
    "kafka-username",
    "kafka-password",
    "s3-access-key",
    "s3-secret-key",
    "catalog-username",
    "catalog-password",
)
CONSOLE = """\
kafka: {{bootstrap: "127.0.0.1:{kafka}", topic: test-topic, security: sasl-ssl}}
http: 127.0.0.1:0
secrets-file: /settings/secrets.yaml
"""
WITH_TABLE = (
    CONSOLE
    + """\
table: {{name: newtable, warehouse: "s3a://spark/warehouse"}}
s3: {{endpoint: "https://127.0.0.1:{s3}"}}
catalog: postgresql://127.0.0.1:{postgres}/hivemetastore
catalog-tls: verify-full
"""
)


class ToCharmcraft(Unpacked):
    """What charmcraft itself says of charmcraft.yaml and of what was packed."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        try:
            python = pack.venv("charmcraft", CHARMCRAFT) / "bin/python"
        except (OSError, subprocess.CalledProcessError) as error:
            raise unittest.SkipTest(f"cannot install {CHARMCRAFT[0]}: {error}")
        asked = subprocess.run([python, "-c", ASK, ROOT, cls.charm], capture_output=True, text=True)
        if asked.returncode:
            raise AssertionError(f"charmcraft refuses charmcraft.yaml: {asked.stderr}")
        cls.answer = json.loads(asked.stdout)
        cls.files = cls.answer["files"]

    def test_charmcraft_yaml_has_type_base_platforms_and_parts_only(self):
        self.assertEqual(set(self.files["charmcraft.yaml"]), {"type", "base", "platforms", "parts"})

    def test_each_key_is_in_one_file(self):
        self.assertFalse(set(self.files["charmcraft.yaml"]) & set(self.files["metadata.yaml"]))
        self.assertFalse({"config", "actions"} & set(self.files["metadata.yaml"]))

    def test_manifest_is_what_charmcraft_would_write(self):
        self.assertEqual(self.files["manifest.yaml"], {"bases": self.answer["bases"]})
        name, platform = self.files["metadata.yaml"]["name"], list(self.files["charmcraft.yaml"]["platforms"])
        self.assertEqual([f"{name}_{platform}.charm" for platform in platform], [pack.CHARM.name])

    def test_charmcraft_packs_the_same_files(self):
        (part,) = self.files["charmcraft.yaml"]["parts"].values()
        written = {"actions.yaml", "config.yaml", "manifest.yaml", "metadata.yaml"}
        self.assertEqual(set(part["prime"]) | written, set(MODES))

    def test_linters_find_nothing(self):
        found = [f"{name}: {result} {text}" for name, result, text in self.answer["lint"]]
        self.assertFalse([line for line in found if re.search(r": (error|warning|fatal)", line)], found)

    def test_every_endpoint_says_whether_it_is_optional(self):
        metadata = self.files["metadata.yaml"]
        for endpoints in (metadata["requires"], metadata["provides"]):
            for name, endpoint in endpoints.items():
                self.assertIn("optional", endpoint, name)
        once = {name for name, endpoint in metadata["requires"].items() if endpoint.get("limit") == 1}
        self.assertLessEqual({"kafka-client", "s3-credentials", "metastore-db"}, once)

    def test_every_container_has_its_image(self):
        metadata = self.files["metadata.yaml"]
        for container in metadata["containers"].values():
            self.assertEqual(metadata["resources"][container["resource"]]["type"], "oci-image")

    def test_every_option_has_a_type_a_default_of_that_type_and_a_description(self):
        types = {"string": str, "int": int, "boolean": bool}
        for name, option in self.files["config.yaml"]["options"].items():
            self.assertRegex(name, r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$")
            self.assertGreater(len(option["description"]), 40, name)
            if option["type"] == "secret":
                self.assertNotIn("default", option, name)
            else:
                # `off` without quotes would be a boolean.
                self.assertIs(type(option["default"]), types[option["type"]], name)

    def test_every_action_takes_what_it_names_and_nothing_else(self):
        for name, action in self.files["actions.yaml"].items():
            self.assertRegex(name, r"^[a-z]+(-[a-z]+)*$")
            self.assertIs(action["additionalProperties"], False, name)
            self.assertTrue(action["description"], name)
            for parameter in action.get("params", {}).values():
                self.assertIn("default", parameter, name)


# Runs in charmcraft's own Python: argument 1 is the repository, 2 the unpacked charm.
ASK = """
import json, pathlib, sys, yaml
from charmcraft import linters
from charmcraft.models.project import CharmcraftProject
root, charm = map(pathlib.Path, sys.argv[1:])
project = CharmcraftProject.from_yaml_file(root / "charmcraft.yaml")
lint = [(checker.name, checker.run(charm), checker.text) for checker in (kind() for kind in linters.CHECKERS)]
distribution, _, channel = project.base.partition("@")
files = {name: yaml.safe_load((charm / name).read_text())
         for name in ("actions.yaml", "config.yaml", "manifest.yaml", "metadata.yaml")}
files["charmcraft.yaml"] = yaml.safe_load((root / "charmcraft.yaml").read_text())
bases = [{"name": distribution, "channel": channel, "architectures": list(project.platforms)}]
json.dump({"files": files, "bases": bases, "lint": lint}, sys.stdout)
"""


if __name__ == "__main__":
    if not pack.CHARM.exists():
        sys.exit(f"missing: {pack.CHARM.name}; run: make pack")
    unittest.main(verbosity=2)
