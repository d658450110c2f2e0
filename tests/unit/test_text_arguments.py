"""Numbers and lists that are text: in arguments, space files, addresses. No foreign digits, no traceback."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from s2s_search.cli.arguments import comma_separated, counted, positive_number
from s2s_search.cli.command_line import main
from s2s_search.cli.whatif import REPLAYED
from s2s_search.errors import ConfigError
from s2s_search.hparams.configuration import parse_hparams, resolve
from s2s_search.spaces.load import load_space
from s2s_search.spaces.settings import Resources
from s2s_search.tuning.cluster import ray_problems
from tests import runs

ODD = [
    "",
    " ",
    "²",
    "٣",
    "１２",
    "1_0",
    "0x10",
    "1e400",
    "nan",
    "inf",
    "-1",
    "+1",
    "1.5.",
    "9" * 5000,
    "1,",
    "½",
    "1 0",
    "--",
]


@pytest.mark.parametrize("text", ODD)
@pytest.mark.parametrize("kind", [counted(1), positive_number])
def test_an_argument_that_is_no_number(kind: Callable[[str], Any], text: str) -> None:
    if (kind, text) == (positive_number, "+1"):
        assert kind(text) == 1.0
        return
    with pytest.raises(argparse.ArgumentTypeError) as raised:
        kind(text)
    assert len(str(raised.value)) < 200


@pytest.mark.parametrize("text, value", [("3", 3.0), ("1e-3", 0.001), ("0.5", 0.5), (" 2 ", 2.0)])
def test_an_argument_that_is_a_number(text: str, value: float) -> None:
    assert positive_number(text) == value


@pytest.mark.parametrize(
    "text, names", [("", []), ("a", ["a"]), ("a, b", ["a", "b"]), ("a,a", ["a"])]
)
def test_an_argument_that_is_a_list_of_names(text: str, names: list[str]) -> None:
    assert comma_separated(text) == names


@pytest.mark.parametrize("text", [",", "a,", ",a", "a,,b", " , "])
def test_a_list_with_a_name_that_is_none(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="names separated by commas"):
        comma_separated(text)


@pytest.mark.parametrize("status", [",", "", "failed,", "faild", "finished", "lost,faild"])
def test_retry_of_a_status_that_is_none(
    tmp_path: Path, status: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = runs.write_run(tmp_path / "run", trials=3)
    before = (folder / "events.jsonl").read_bytes()
    assert main(["retry", str(folder), "--status", status]) == 2
    assert "--status" in capsys.readouterr().err
    assert (folder / "events.jsonl").read_bytes() == before


@pytest.mark.parametrize("trial", ["9" * 5000, "²", "٣", "trial-٠٠٠٠١", "=", "x=" + "9" * 5000])
def test_a_trial_that_is_none(
    tmp_path: Path, trial: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(runs.write_run(tmp_path / "run", trials=3))
    for command in (
        ["compare", folder, "0", trial],
        ["compare", folder, trial, trial],
        ["explain", folder, trial],
    ):
        assert main(command) == 2
        err = capsys.readouterr().err
        assert "Traceback" not in err
        assert len(err) < 2000


@pytest.mark.parametrize(
    "port", ["²", "٣", "", "-1", "0", "65536", "9" * 5000, "1_0", "+80", " 80"]
)
def test_an_address_whose_port_is_none(port: str) -> None:
    found = ray_problems(Resources(1, 0), f"localhost:{port}")
    assert len(found) == 1
    assert "must be auto, or the HOST:PORT" in found[0]


@pytest.mark.parametrize("host", ["a..b", "." * 300, "x" * 300, "\udc80", "[::"])
def test_an_address_whose_host_is_none(host: str) -> None:
    assert len(ray_problems(Resources(1, 0), f"{host}:1")) == 1


@pytest.mark.parametrize("flag, key, what", REPLAYED)
@pytest.mark.parametrize("text", ["", ",", "²", "1_0", "1e400", "9" * 5000, "nan"])
def test_a_replay_under_what_is_no_value(
    tmp_path: Path, flag: str, key: str, what: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replay", str(tmp_path), flag, text]) == 2
    assert f"argument {flag}: " in capsys.readouterr().err


NUMBERS = [
    "search: {trials: %s}",
    "search: {hours: %s}",
    "scheduler: {max_steps: %s}",
    "scheduler: {reduction_factor: %s}",
    "resources: {cpu: %s}",
    "checkpoints: {disk_gb: %s}",
    "corpus: {name: copy, train: %s}",
    "corpus: {name: copy, seed: %s}",
]


@pytest.mark.parametrize("place", NUMBERS)
@pytest.mark.parametrize(
    "text",
    ["1e400", "-1e400", ".inf", ".nan", "1_0", "0x10", "²", "٣", "true", "9" * 5000, "1e-320"],
)
def test_a_number_in_a_space_file_that_is_none(tmp_path: Path, place: str, text: str) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(
        f"model: BasicSeq2Seq\n{place % text}\nparameters: "
        f"{{optimizer.learning_rate: {{min: 1e-4, max: 1e-2}}}}\n"
    )
    if text == "1e-320" and ("hours" in place or "disk_gb" in place):
        assert load_space(path)  # that is soon over, but a number
        return
    with pytest.raises(ConfigError) as raised:
        load_space(path)
    assert len(str(raised.value)) < 400


def test_a_share_of_a_gpu_that_ray_cannot_count(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text("model: BasicSeq2Seq\nresources: {gpu: 1e-5}\n")
    with pytest.raises(
        ConfigError, match=r"resources.gpu: must be 0 or at least 0.0001, but gpu = 1e-05"
    ):
        load_space(path)


@pytest.mark.parametrize(
    "form", ['{"train.seed": %s}', "train.seed=%s", 'bridge_spec={"class": "ZeroBridge", "x": %s}']
)
def test_hyperparameters_of_thousands_of_digits(form: str) -> None:
    with pytest.raises(ConfigError) as raised:
        resolve("BasicSeq2Seq", parse_hparams(form % ("9" * 5000)))
    assert "set_int_max_str_digits" not in str(raised.value)
    assert len(str(raised.value)) < 400
