"""Runs the example on this machine, starting and stopping all of Flower's processes.

    python loopback.py simulation --out run                          # all nodes in one simulation
    python loopback.py deployment --out run --nodes 6 --malicious 2  # a SuperNode for each

Both start a SuperLink with TLS on a free port of 127.0.0.1. A deployment has one SuperNode process
per node with a registered key; the SuperLink refuses other nodes. Certificates and keys are made
for this run in a temporary folder, which is also Flower's home, so no file of the user changes.
When the run ends, fails, takes too long or is interrupted, every process is stopped, including (on
systems with /proc) those that Flower has detached.
"""

from __future__ import annotations

import argparse
import ctypes
import datetime
import ipaddress
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

HERE = Path(__file__).resolve().parent
MARK = "TFFL_LOOPBACK"
"""Environment variable that marks every process of a run."""


class RunFailed(Exception):
    """The run did not finish; the message gives the reason."""


class Processes:
    """The processes of one run, all of which end with it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.mark = secrets.token_hex(16)
        self.patience = 10.0  # seconds between terminating a process and killing it
        self._started: dict[str, subprocess.Popen[bytes]] = {}
        self._environment = {
            **os.environ,
            MARK: self.mark,
            "FLWR_HOME": str(home),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "TF_CPP_MIN_LOG_LEVEL": "2",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        }

    def start(self, name: str, command: list[str]) -> subprocess.Popen[bytes]:
        """Starts a server, whose output goes to `NAME.log`."""
        with self.log(name).open("wb") as log:
            process = subprocess.Popen(
                command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        self._started[name] = process
        return process

    def run(self, name: str, command: list[str], deadline: float) -> str:
        """Runs a command until it ends and returns its output.

        Raises:
          RunFailed: The command failed, a server ended meanwhile, or the deadline has passed.
        """
        process = self.start(name, command)
        while process.poll() is None:
            ended = [n for n, p in self._started.items() if p is not process and p.poll()]
            if ended and ended != ["impostor"]:
                raise RunFailed(f"{ended[0]} ended: {self.tail(ended[0])}")
            if time.monotonic() > deadline:
                raise RunFailed(f"{name} did not finish in time: {self.tail(name)}")
            time.sleep(0.2)
        del self._started[name]
        if process.returncode != 0:
            raise RunFailed(f"{name} failed: {self.tail(name)}")
        return self.log(name).read_text(errors="replace")

    def log(self, name: str) -> Path:
        """Returns the log file of a process."""
        return self.home / f"{name}.log"

    def tail(self, name: str, lines: int = 20) -> str:
        """Returns the last lines of a process' log."""
        return "\n".join(self.log(name).read_text(errors="replace").splitlines()[-lines:])

    def stop(self) -> None:
        """Terminates all processes, kills those that remain, and includes those of Flower."""
        for signal_number in (signal.SIGTERM, signal.SIGKILL):
            until = time.monotonic() + self.patience
            signaled: set[int] = set()
            while (alive := self._alive()) and time.monotonic() < until:
                for process in alive - signaled:
                    _kill(process, signal_number)
                signaled |= alive
                time.sleep(0.1)
        for process in self._started.values():
            process.wait(timeout=10)

    def _alive(self) -> set[int]:
        own = {p.pid for p in self._started.values() if p.poll() is None}
        return own | set(_marked(self.mark))


def _marked(mark: str) -> Iterator[int]:
    """Yields the processes that have inherited a mark, on systems with /proc."""
    wanted = f"{MARK}={mark}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                yield int(folder.name)
        except OSError:  # it ended, or is another user's
            continue


def _kill(process: int, signal_number: int) -> None:
    try:
        os.kill(process, signal_number)
    except ProcessLookupError:
        return


def _die_with_parent() -> None:
    """Makes Linux kill this process if this script is killed before it can clean up."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def free_ports(count: int) -> list[int]:
    """Returns distinct free ports."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


# TLS and keys.


def make_certificates(home: Path) -> dict[str, Path]:
    """Writes a certificate authority and a certificate for 127.0.0.1; valid for a day."""
    authority_key, key = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
    authority = _certificate("tffl example CA", authority_key, None, authority_key)
    certificate = _certificate("127.0.0.1", key, authority, authority_key)
    paths = {name: home / f"{name}.pem" for name in ("ca", "server", "key")}
    paths["ca"].write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    paths["server"].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    _write_secret(paths["key"], key, serialization.PrivateFormat.PKCS8)
    return paths


def _certificate(
    name: str, key: Any, issuer: x509.Certificate | None, issuer_key: Any
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
        .add_extension(_usage(authority=issuer is None), critical=True)
    )
    if issuer is not None:
        addresses = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
        builder = builder.add_extension(x509.SubjectAlternativeName(addresses), critical=False)
    return builder.sign(issuer_key, hashes.SHA384())


def _usage(authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def make_node_key(home: Path, name: str) -> tuple[Path, Path]:
    """Writes a SuperNode's private and public key."""
    key = ec.generate_private_key(ec.SECP384R1())
    private, public = home / f"{name}_key", home / f"{name}_key.pub"
    _write_secret(private, key, serialization.PrivateFormat.OpenSSH)
    openssh = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    public.write_bytes(key.public_key().public_bytes(*openssh))
    return private, public


def _write_secret(path: Path, key: Any, form: serialization.PrivateFormat) -> None:
    content = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    with open(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


# A run.


def superlink(tls: dict[str, Path], port: int, *more: str) -> list[str]:
    """Returns the command of a SuperLink with TLS on 127.0.0.1."""
    return [
        *_tool("flower-superlink"),
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--ssl-ca-certfile", str(tls["ca"])),
        *("--ssl-certfile", str(tls["server"]), "--ssl-keyfile", str(tls["key"])),
        "--disable-runtime-dependency-installation",
        *more,
    ]


def supernode(tls: dict[str, Path], link: int, port: int, key: Path, config: str) -> list[str]:
    """Returns the command of a SuperNode with a key, which checks the SuperLink's certificate."""
    return [
        *_tool("flower-supernode"),
        *("--superlink", f"127.0.0.1:{link}", "--root-certificates", str(tls["ca"])),
        *("--auth-supernode-private-key", str(key)),
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--ssl-ca-certfile", str(tls["ca"])),
        *("--ssl-certfile", str(tls["server"]), "--ssl-keyfile", str(tls["key"])),
        *("--node-config", config, "--max-wait-time", "120"),
    ]


def _tool(name: str) -> list[str]:
    path = Path(sys.executable).parent / name
    return [str(path)] if path.exists() else [shutil.which(name) or name]


def wait_for(port: int, deadline: float, processes: Processes, name: str) -> None:
    """Waits until a server listens on a port.

    Raises:
      RunFailed: The deadline has passed.
    """
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise RunFailed(f"{name} does not listen: {processes.tail(name)}")


@contextmanager
def cleaned_up() -> Iterator[Processes]:
    """Yields the processes of a run, and stops them in any case, also after SIGTERM."""

    def interrupt(number: int, _: Any) -> None:
        raise RunFailed(f"stopped by signal {number}")

    before = {
        number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)
    }
    home = Path(tempfile.mkdtemp(prefix="tffl-flower-"))
    processes = Processes(home)
    try:
        yield processes
    finally:
        for number in before:
            signal.signal(number, signal.SIG_IGN)
        processes.stop()
        shutil.rmtree(home, ignore_errors=True)
        for number, handler in before.items():
            signal.signal(number, handler)


def run_example(options: argparse.Namespace) -> None:
    """Runs the example once.

    Raises:
      RunFailed: The run did not finish.
    """
    deadline = time.monotonic() + options.timeout
    out = Path(options.out).resolve()
    if (out / "accuracy.csv").exists():
        raise RunFailed(f"{out} holds a run: give another folder")
    out.mkdir(parents=True, exist_ok=True)
    with cleaned_up() as processes:
        try:
            _run_example(options, out, deadline, processes)
        finally:
            for log in processes.home.glob("*.log"):
                shutil.copy(log, out)
    if not (out / "accuracy.csv").exists():
        lines = (out / "run.log").read_text(errors="replace").splitlines()
        errors = [line for line in lines if re.match(r"[\w.]+(Error|Exception|Replies): ", line)]
        raise RunFailed(f"the run failed: {errors[-1] if errors else f'see {out}'}")


def _run_example(
    options: argparse.Namespace, out: Path, deadline: float, processes: Processes
) -> None:
    home, simulated = processes.home, options.kind == "simulation"
    tls = make_certificates(home)
    link, *ports = free_ports(options.nodes + 2)
    more = ["--simulation"] if simulated else ["--enable-supernode-auth"]
    processes.start("superlink", superlink(tls, link, *more))
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "loopback"\n\n[superlink.loopback]\n'
        f'address = "127.0.0.1:{link}"\nroot-certificates = "{tls["ca"]}"\n'
    )
    wait_for(link, deadline, processes, "superlink")
    if not simulated:
        nodes = _start_nodes(options, tls, link, ports, deadline, processes)
        rows = [f"{node},{part},{int(part < options.malicious)}" for part, node in enumerate(nodes)]
        (out / "truth.csv").write_text("\n".join(["node,part,malicious", *rows, ""]))
    federation = [
        "--federation-config",
        f"num-supernodes={options.nodes} client-resources-num-cpus=1",
    ]
    settings = [
        f"nodes={options.nodes}",
        f"malicious={options.malicious}",
        f'out="{out}"',
        f"ask-nodes={str(simulated).lower()}",  # a deployment's are known from registering them
        *options.config,
    ]
    command = [*_tool("flwr"), "run", str(HERE), "loopback", "--stream"]
    command += federation if simulated else []
    processes.run("run", [*command, "--run-config", " ".join(settings)], deadline)


def _start_nodes(
    options: argparse.Namespace,
    tls: dict[str, Path],
    link: int,
    ports: list[int],
    deadline: float,
    processes: Processes,
) -> list[str]:
    """Registers a key for each node, starts the nodes, and returns their ids in Flower."""
    nodes = []
    for number in range(options.nodes):
        name = f"node{number}"
        private, public = make_node_key(processes.home, name)
        command = [*_tool("flwr"), "supernode", "register", str(public), "loopback"]
        answer = processes.run(f"register{number}", [*command, "--format", "json"], deadline)
        nodes.append(str(json.loads(answer[answer.index("{") :])["node-id"]))
        malicious = str(number < options.malicious).lower()
        config = f"partition-id={number} num-partitions={options.nodes} malicious={malicious}"
        processes.start(name, supernode(tls, link, ports[number], private, config))
    if options.impostor:
        private, _ = make_node_key(processes.home, "impostor")
        config = f"partition-id=0 num-partitions={options.nodes}"
        processes.start("impostor", supernode(tls, link, ports[-1], private, config))
    return nodes


def main(arguments: list[str] | None = None) -> int:
    """Parses the command line, runs the example, and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("kind", choices=("simulation", "deployment"))
    parser.add_argument("--out", required=True, help="new folder for tables and logs")
    parser.add_argument("--nodes", type=int, default=10)
    parser.add_argument("--malicious", type=int, default=3)
    parser.add_argument("--timeout", type=float, default=1800, help="largest duration in seconds")
    parser.add_argument("--impostor", action="store_true", help="start an unregistered node")
    parser.add_argument(
        "--config",
        nargs="*",
        default=[],
        metavar="KEY=VALUE",
        help="""as in pyproject.toml, such
        as 'defense="flower-multi-krum"' num-server-rounds=3""",
    )
    options = parser.parse_args(arguments)
    try:
        run_example(options)
    except RunFailed as failure:
        print(failure, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
