"""Real brokers for tests: each a process on loopback ports of its own, with its data in a temporary folder.

Redis and RabbitMQ are Debian's (``redis-server``, ``rabbitmq-server``). Kafka and ElasticMQ, which speaks SQS, run from
Maven Central's jars: they are fetched once, with Maven, and kept in the user's cache.
"""

from __future__ import annotations

import abc
import contextlib
import os
import runpy
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

free_port = runpy.run_path(str(Path(__file__).parent.parent / "ports.py"))["free_port"]
START_SECONDS = 90
STOP_SECONDS = 20
MAVEN_SECONDS = 600
COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
# A server under test is small and lives briefly: little memory, and no time spent on optimizing it.
JVM = ("-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")


class MissingError(Exception):
    """What a broker needs is not there; ``how`` says how to get it."""

    def __init__(self, what: str, how: str) -> None:
        super().__init__(what)
        self.what = what
        self.how = how


@dataclass(frozen=True)
class Jars:
    """Something of Maven Central with all that it needs."""

    name: str
    group: str
    artifact: str
    version: str
    excluded: str = ""

    def fetch(self) -> str:
        """The class path of it, fetched where it is not in the cache."""
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "supportfleet" / "jars"
        folder = cache / f"{self.name}-{self.version}"
        if not folder.is_dir():
            self._fetch(folder)
        return f"{folder}/*"

    def _fetch(self, folder: Path) -> None:
        if shutil.which("mvn") is None:
            raise MissingError(self.name, "install Debian's packages maven and default-jre-headless")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            (Path(scratch) / "pom.xml").write_text(self._pom())
            command = ["mvn", "-q", "-B", COPY, "-DincludeScope=runtime", f"-DoutputDirectory={scratch}/jars"]
            done = subprocess.run(
                command, cwd=scratch, capture_output=True, text=True, timeout=MAVEN_SECONDS, check=False
            )
            if done.returncode:
                lines = done.stdout.strip().splitlines()
                raise MissingError(self.name, f"Maven must reach Maven Central: {lines[0] if lines else 'it failed'}")
            with contextlib.suppress(OSError):  # another run was faster
                (Path(scratch) / "jars").rename(folder)

    def _pom(self) -> str:
        group, _, artifact = self.excluded.partition(":")
        exclusion = f"<exclusion><groupId>{group}</groupId><artifactId>{artifact}</artifactId></exclusion>"
        return f"""<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>test</groupId><artifactId>{self.name}</artifactId><version>1</version><dependencies><dependency>
<groupId>{self.group}</groupId><artifactId>{self.artifact}</artifactId><version>{self.version}</version>
<exclusions>{exclusion if self.excluded else ""}</exclusions></dependency></dependencies></project>"""


KAFKA = Jars("kafka", "org.apache.kafka", "kafka_2.13", "4.4.0", excluded="org.apache.kafka:kafka-tools-api")
ELASTICMQ = Jars("elasticmq", "org.elasticmq", "elasticmq-server_2.13", "1.7.1")


class Server(abc.ABC):
    """A process that is started, killed and started again on the same port and data."""

    kind: str

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"supportfleet-{self.kind}-"))
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.prepare()

    @property
    @abc.abstractmethod
    def url(self) -> str:
        """What QUEUE_URL is set to."""

    @abc.abstractmethod
    def prepare(self) -> None:
        """Write its configuration."""

    @abc.abstractmethod
    def command(self) -> Sequence[str | Path]:
        """How it is run."""

    def environment(self) -> Mapping[str, str]:
        """What it needs in its environment."""
        return {}

    def is_up(self) -> bool:
        """Whether it can be used, once its port is open."""
        return True

    def start(self) -> None:
        """Start it, and wait until it can be used."""
        env = {**os.environ, **self.environment()}
        with (self.folder / "output").open("ab") as log:
            self._process = subprocess.Popen(self.command(), stdout=log, stderr=log, cwd=self.folder, env=env)
        deadline = time.monotonic() + START_SECONDS
        while not (is_open(self.port) and self.is_up()):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError((self.folder / "output").read_text()[-4000:])
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop it, as an upgrade does."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(STOP_SECONDS)
            self._process = None

    def kill(self) -> None:
        """Kill it, as an outage does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_SECONDS)
            self._process = None

    def remove(self) -> None:
        """Kill it and delete its data."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def read(self) -> str:
        """What it has said so far."""
        return (self.folder / "output").read_text(errors="replace")


class RedisServer(Server):
    kind = "redis"

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def prepare(self) -> None:
        need("redis-server", "install Debian's package redis-server")

    def command(self) -> Sequence[str | Path]:
        options = {"port": self.port, "bind": "127.0.0.1", "dir": self.folder, "appendonly": "yes", "save": ""}
        return ["redis-server", *(part for name, value in options.items() for part in (f"--{name}", str(value)))]

    def is_up(self) -> bool:
        """Whether it has read its data: until then it refuses every command."""
        with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")


class RabbitServer(Server):
    kind = "rabbitmq"
    program = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")  # the one on PATH insists on the service's user

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    def prepare(self) -> None:
        if not self.program.is_file():
            raise MissingError("RabbitMQ", "install Debian's package rabbitmq-server")
        self._epmd, self._distribution = free_port(), free_port()
        self._names: subprocess.Popen[bytes] | None = None
        self._starts = 0
        (self.folder / "plugins").write_text("[].")
        (self.folder / "rabbitmq.conf").touch()

    def command(self) -> Sequence[str | Path]:
        return [self.program]

    def environment(self) -> Mapping[str, str]:
        self._starts += 1
        return {
            "HOME": str(self.folder),
            "RABBITMQ_NODENAME": "test@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._distribution),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+sbwt none +sbwtdcpu none +sbwtdio none +S 1:1",
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._epmd),
        }

    def is_up(self) -> bool:
        return self.read().count("Server startup complete") >= self._starts

    def start(self) -> None:
        """Start Erlang's name server, which the node would leave behind as a daemon, then the node."""
        if self._names is None:
            command = ["epmd", "-port", str(self._epmd), "-address", "127.0.0.1"]
            self._names = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while not is_open(self._epmd):
                time.sleep(0.02)
        super().start()

    def kill(self) -> None:
        """Kill the node itself: what was started is a script that waits for it."""
        if self._process is not None:
            for child in children(self._process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
        super().kill()

    def remove(self) -> None:
        super().remove()
        if self._names is not None:
            self._names.kill()
            self._names.wait(STOP_SECONDS)


class KafkaServer(Server):
    kind = "kafka"

    @property
    def url(self) -> str:
        return f"kafka://127.0.0.1:{self.port}?partitions=4"

    def prepare(self) -> None:
        need("java", "install Debian's package default-jre-headless")
        self._jars = KAFKA.fetch()
        controller = free_port()
        settings = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{controller}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": str(self.folder / "data"),
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            "auto.create.topics.enable": "false",
        }
        self._file = self.folder / "server.properties"
        self._file.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        identity = uuid.uuid4().hex[:22]
        done = subprocess.run(
            ["java", *JVM, "-cp", self._jars, "kafka.tools.StorageTool", "format", "-t", identity, "-c", self._file],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def command(self) -> Sequence[str | Path]:
        return ["java", *JVM, "-cp", self._jars, "kafka.Kafka", self._file]


class SqsServer(Server):
    kind = "sqs"

    @property
    def url(self) -> str:
        return f"sqs://us-east-1?endpoint=http://127.0.0.1:{self.port}"

    def prepare(self) -> None:
        need("java", "install Debian's package default-jre-headless")
        self._jars = ELASTICMQ.fetch()
        address = f'"127.0.0.1", port = {self.port}, context-path = ""'
        self._file = self.folder / "server.conf"
        self._file.write_text(f"""include classpath("application.conf")
node-address {{ protocol = http, host = {address} }}
rest-sqs {{ enabled = true, bind-hostname = "127.0.0.1", bind-port = {self.port}, sqs-limits = strict }}
rest-stats {{ enabled = false }}
queues-storage {{ enabled = true, path = "{self.folder}/queues.conf" }}
messages-storage {{ enabled = true, uri = "jdbc:h2:{self.folder}/messages" }}
""")

    def command(self) -> Sequence[str | Path]:
        return ["java", *JVM, f"-Dconfig.file={self._file}", "-cp", self._jars, "org.elasticmq.server.Main"]

    @property
    def credentials(self) -> dict[str, str]:
        return {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


SERVERS: Mapping[str, type[Server]] = {
    server.kind: server for server in (RedisServer, RabbitServer, KafkaServer, SqsServer)
}


@contextlib.contextmanager
def running(kind: str, unavailable: Callable[[str, str], NoReturn]) -> Iterator[Server | None]:
    """A broker of this kind that runs; none where the kind is that of a database."""
    if kind not in SERVERS:
        yield None
        return
    try:
        server = SERVERS[kind]()
    except MissingError as error:
        unavailable(error.what, error.how)
    try:
        server.start()
        yield server
    finally:
        server.remove()


def need(program: str, how: str) -> None:
    """Require a program."""
    if shutil.which(program) is None:
        raise MissingError(program, how)


def is_open(port: int) -> bool:
    """Whether something takes connections there."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def children(pid: int) -> list[int]:
    """The processes that a process has started, and theirs."""
    tasks = Path(f"/proc/{pid}/task")
    with contextlib.suppress(OSError):
        direct = [int(child) for task in tasks.iterdir() for child in (task / "children").read_text().split()]
        return [child for one in direct for child in (one, *children(one))]
    return []
