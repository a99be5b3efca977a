"""docker/: what can be checked without a daemon or a cluster."""

from __future__ import annotations

import re
import shlex
import ssl
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import typer
import yaml

from steelyard.cli.app import app
from steelyard.plugin.milvus import settings as milvus
from steelyard.plugin.opensearch import settings as opensearch

ROOT = Path(__file__).parents[1]
DOCKER = ROOT / "docker"
COMPOSE = sorted(DOCKER.glob("compose.*.yaml"))
NIGHTLY = DOCKER / "kubernetes" / "nightly-reindex.yaml"
SERVERS = {
    "a": {"opensearch", "etcd", "minio", "milvus"},
    "b": {"opensearch"},
    "c": {"etcd", "minio", "milvus"},
}
KUBERNETES = "1.31"
SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|ACCESS_KEY|API_KEY|ROOT_USER")
REQUIRED = re.compile(r"\$\{(\w+):\?[^}]+\}")


def services_of(path: Path) -> dict[str, dict[str, Any]]:
    """The services of a compose file, with what they extend."""
    services: dict[str, dict[str, Any]] = yaml.safe_load(path.read_text())["services"]
    whole = {}
    for name, own in services.items():
        base: dict[str, Any] = {}
        if "extends" in own:
            base = services_of(path.parent / own["extends"]["file"])[own["extends"]["service"]]
        environment = base.get("environment", {}) | own.get("environment", {})
        whole[name] = base | own | {"environment": environment}
    return whole


def with_defaults(text: str) -> str:
    """Compose's ``${NAME:-default}`` with its default."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def parse_command(arguments: list[str]) -> dict[str, Any]:
    """What the command line makes of arguments, without running anything."""
    root: Any = typer.main.get_command(app)
    command = root.commands[arguments[0]]
    parameters: dict[str, Any] = command.make_context(arguments[0], arguments[1:]).params
    return parameters


def engines_of(to: str) -> list[tuple[str, str]]:
    """Scheme and ``host:port`` of each engine in an address."""
    return re.findall(r"(\w+)://([^/,]+)/\w+", to)


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.name)
def test_every_service_is_watched_and_pinned(path: Path) -> None:
    services = services_of(path)
    letter = path.name.split(".")[1]
    assert set(services) == SERVERS[letter] | {"certificates", "indexer"}
    for name, service in services.items():
        if name == "indexer":
            assert service["healthcheck"] == {"disable": True}
            assert service["restart"] == "no"
            assert service["profiles"] == ["nightly"]
            continue
        assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL"), name
        assert re.fullmatch(r"[\w./-]+:[\w.-]*\d[\w.-]*", service["image"]), name
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), name


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.name)
def test_a_service_waits_for_what_it_needs(path: Path) -> None:
    services = services_of(path)
    for name, service in services.items():
        for other, rule in service.get("depends_on", {}).items():
            once = services[other].get("restart") is None
            expected = "service_completed_successfully" if once else "service_healthy"
            assert rule == {"condition": expected}, (name, other)
    named = set(yaml.safe_load(path.read_text())["volumes"])
    mounts = [mount for service in services.values() for mount in service.get("volumes", [])]
    used = {m.split(":")[0] for m in mounts if not m.startswith((".", "$", "/"))}
    assert used == named


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.name)
def test_no_password_has_a_value(path: Path) -> None:
    seen = 0
    for name, service in services_of(path).items():
        for variable, value in service["environment"].items():
            if SECRET.search(variable):
                seen += 1
                assert REQUIRED.fullmatch(value), (name, variable)
    assert seen


def test_the_example_names_every_required_variable_and_gives_no_value() -> None:
    text = "".join(path.read_text() for path in DOCKER.glob("*.yaml"))
    lines = (DOCKER / ".env.example").read_text().splitlines()
    given = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert set(given) == set(REQUIRED.findall(text))
    assert set(given.values()) == {""}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    subprocess.run(["/bin/sh", str(DOCKER / "certificates.sh"), str(folder)], check=True)
    return folder


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.name)
def test_the_indexers_command_is_one(path: Path, certificates: Path) -> None:
    services = services_of(path)
    indexer = services["indexer"]
    parameters = parse_command([with_defaults(part) for part in indexer["command"]])
    environment = {
        variable: str(certificates / "ca.pem") if variable.endswith("_CA") else "x" * 8
        for variable in indexer["environment"]
    }
    for scheme, address in engines_of(*parameters["to"]):
        settings = {"opensearchs": opensearch, "milvuss": milvus}[scheme]
        found = settings.read_settings(address, tls=True, environment=environment)
        assert found.host in services
        assert f":{found.port}" in services[found.host]["ports"][0]
    engines = {host.split(":")[0] for _, host in engines_of(*parameters["to"])}
    assert engines == set(services) & {"opensearch", "milvus"}


def test_the_settings_in_files_are_those_that_the_engines_read() -> None:
    known = {
        value
        for module in (opensearch, milvus)
        for value in vars(module).values()
        if isinstance(value, str) and value.startswith("STEELYARD_")
    }
    for path in [*DOCKER.glob("*.yaml"), NIGHTLY]:
        found = set(re.findall(r"STEELYARD_(?:OPENSEARCH|MILVUS)_\w+", path.read_text()))
        assert found <= known


def test_the_certificates_are_for_their_servers_only(certificates: Path) -> None:
    def handshake(server: str, name: str) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates / f"{server}.pem", certificates / f"{server}.key")
        trusting = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
        trusting.verify_flags |= ssl.VERIFY_X509_STRICT
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = trusting.wrap_bio(to_client, to_server, server_hostname=name)
        serving = context.wrap_bio(to_server, to_client, server_side=True)
        for side in (client, serving, client):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue

    for server in ("opensearch", "milvus"):
        handshake(server, server)
        handshake(server, "localhost")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake("milvus", "opensearch")
    for key in certificates.glob("*.key"):
        assert key.stat().st_mode & 0o077 == 0


def test_certificates_are_made_once(certificates: Path) -> None:
    before = {path.name: path.read_bytes() for path in certificates.iterdir()}
    subprocess.run(["/bin/sh", str(DOCKER / "certificates.sh"), str(certificates)], check=True)
    assert {path.name: path.read_bytes() for path in certificates.iterdir()} == before


def cron_job() -> dict[str, Any]:
    documents = list(yaml.safe_load_all(NIGHTLY.read_text()))
    found: dict[str, Any] = next(d for d in documents if d["kind"] == "CronJob")
    return found


def test_kubernetes_knows_every_field() -> None:
    documents = list(yaml.safe_load_all(NIGHTLY.read_text()))
    for document in documents:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    documents[-1]["spec"]["jobTemplate"]["spec"]["podFailurePolicies"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(documents[-1], KUBERNETES, strict=True)


def test_the_nightly_job() -> None:
    spec = cron_job()["spec"]
    assert spec["concurrencyPolicy"] == "Forbid"
    job = spec["jobTemplate"]["spec"]
    actions = {
        code: rule["action"]
        for rule in job["podFailurePolicy"]["rules"]
        for code in rule.get("onExitCodes", {}).get("values", [])
    }
    assert actions == {2: "FailJob", 3: "FailJob", 5: "FailJob", 75: "Count"}
    pod = job["template"]["spec"]
    assert pod["restartPolicy"] == "Never"  # what a failure policy wants
    (container,) = pod["containers"]
    assert job["podFailurePolicy"]["rules"][0]["onExitCodes"]["containerName"] == container["name"]
    for variable in container["env"]:
        if SECRET.search(variable["name"]):
            assert set(variable) == {"name", "valueFrom"}
            assert "secretKeyRef" in variable["valueFrom"]
    claims = {
        v["name"]: v["persistentVolumeClaim"]["claimName"]
        for v in pod["volumes"]
        if "persistentVolumeClaim" in v
    }
    mounts = {m["mountPath"]: m["name"] for m in container["volumeMounts"]}
    assert claims[mounts["/shards"]] == "steelyard-shards"
    assert set(mounts.values()) == {v["name"] for v in pod["volumes"]}
    parameters = parse_command(container["args"])
    assert str(parameters["shards"]).startswith("/shards/")
    ((scheme, address),) = engines_of(*parameters["to"])
    assert scheme == "opensearchs"
    names = {variable["name"] for variable in container["env"]}
    opensearch.read_settings(address, tls=True, environment=dict.fromkeys(names, "x"))


@pytest.mark.parametrize("name", ["query", "indexer"])
def test_an_images_files_reach_the_daemon(name: str) -> None:
    lines = (DOCKER / f"{name}.Dockerfile").read_text().splitlines()
    kept = [x[1:] for x in (ROOT / ".dockerignore").read_text().splitlines() if x[:1] == "!"]
    copied = [
        source
        for line in lines
        if line.startswith("COPY ") and "--from=" not in line
        for source in shlex.split(line)[1:-1]
    ]
    assert "steelyard" in copied
    for source in copied:
        assert source in kept
        assert (ROOT / source).exists()
    assert lines[-1] != "USER root"
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users == ["10001:10001"]
    assert all(re.search(r"python:\$\{PYTHON\}", x) for x in lines if x.startswith("FROM "))


def test_the_images_install_extras_that_exist() -> None:
    text = (DOCKER / "indexer.Dockerfile").read_text()
    match = re.search(r"ARG EXTRAS=(\S+)", text)
    assert match
    project = (ROOT / "pyproject.toml").read_text()
    for extra in match[1].split(","):
        assert re.search(rf"^{extra} = \[", project, re.MULTILINE), extra
