"""Bad input, as a person gives it: what is said, the exit code, and that nothing was begun."""
# ruff: noqa: E501

import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator.cli import main

GOOD = {
    "name": "small",
    "model": "{family: mlp}",
    "data": "{source: digits, image_size: 8}",
    "training": "{steps: 4, global_batch_size: 16, micro_batch_size: 4, precision: fp32}",
    "zero": "{stage: 0}",
    "resources": "{workers: 1, device: cpu}",
}
HEAVY = {"ray", "torch", "deepspeed", "mlflow", "transformers", "sklearn", "numpy"}
BOMB = "\n".join(
    [f"a0: &a0 [{', '.join(['x'] * 9)}]"]
    + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
)

# What stands in the job file instead, in lines that may follow it, and words of the one line told.
BAD_JOBS = {
    "unknown key": ({}, "qwertz: 1", r"job.yaml:7:1: qwertz: unknown key"),
    "misspelt key": ({"zero": "{stge: 1}"}, "", r"job.yaml:5:8: zero.stge: unknown key; did you mean 'stage'\?"),
    "wrong type": ({"training": "many"}, "", r"job.yaml:4:1: training: expected a mapping, got 'many'"),
    "wrong type inside": ({"resources": "{workers: two}"}, "", r":6:13: resources.workers: expected a whole number, got 'two'"),
    "not YAML": ({"zero": "{stage: 1"}, "", r"job.yaml:6:10: not valid YAML"),
    "duplicate key": ({"zero": "{stage: 1, stage: 2}"}, "", r":5:18: zero.stage: duplicate key"),
    "anchor": ({"deepspeed": "&x {a: 1}"}, "", r"job.yaml:7:12: deepspeed: anchors and aliases .* are not supported"),
    "deep": ({"deepspeed": "[" * 5000 + "]" * 5000}, "", r":7:43: more than 32 levels deep"),
    "out of range": ({"zero": "{stage: 4}"}, "", r":5:8: zero.stage: got 4; choose one of 0, 1, 2, 3"),
    "negative": ({"resources": "{workers: -1}"}, "", r"resources.workers: got -1; must be at least 1"),
    "NaN": ({"training": "{steps: 1, global_batch_size: 4, optimizer: {lr: .nan}}"}, "", r"training.optimizer.lr: not a finite number"),
    "1e999": ({"training": "{steps: 1, global_batch_size: 4, optimizer: {lr: 1e999}}"}, "", r"training.optimizer.lr: the number is too large"),
    "batch": ({"training": "{steps: 1, global_batch_size: 10, micro_batch_size: 4}"}, "", r"training.global_batch_size: 10 does not divide into micro_batch_size 4"),
    "offload of parameters in stage 2": ({"zero": "{stage: 2, offload_params: cpu}"}, "", r"zero.offload_params: parameter offload needs stage 3, not 2"),
    "nvme without a path": ({"zero": "{stage: 3, offload_optimizer: nvme}"}, "", r"zero.nvme_path: missing; offload to nvme needs a folder"),
    "nvme path not there": ({"zero": "{stage: 3, offload_optimizer: nvme, nvme_path: /nowhere}"}, "", r"zero.nvme_path: /nowhere is no folder"),
    "fp16 on a CPU": ({"training": "{steps: 1, global_batch_size: 4, precision: fp16}"}, "", r"training.precision: fp16 needs a GPU"),
    "DeepSpeed file not there": ({"deepspeed": "ds.json"}, "", r"deepspeed: cannot read .*ds.json: No such file or directory"),
    "key in two places": ({"deepspeed": "{zero_optimization: {stage: 2}}"}, "", r"job.yaml:7:\d+: deepspeed\.zero_optimization"),
    "labels the model does not know": ({"model": "{family: mlp, config: {num_labels: 3}}"}, "", r"model.config.num_labels"),
}  # fmt: skip
BAD_SETTINGS = {
    "no =": ("zero.stage", r"^--set zero.stage: there is no = in it"),
    "unknown": ("zero.stge=1", r"^--set zero.stge=1: zero.stge: unknown key; did you mean 'stage'"),
    "wrong type": ("training.steps=many", r"^--set training.steps=many: training.steps: expected"),
    "empty key": ("=1", r"^--set =1: "),
    "not YAML": ("zero.stage=[1", r"^--set zero.stage=\[1: "),
}
TOO_MUCH = {
    "workers": ("resources.workers=10000", r"resources.workers: 10000 workers x 1 CPUs need 10000"),
    "GPUs": ("resources.device=cuda", r"resources.device: cuda is asked for and this machine has"),
}


@pytest.fixture(autouse=True)
def _plain_surroundings(monkeypatch, tmp_path):
    for name in ("RAY_ADDRESS", "ORCHESTRATOR_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def job(tmp_path):
    def write(more="", **changes):
        path = tmp_path / "job.yaml"
        lines = [f"{key}: {value}" for key, value in {**GOOD, **changes}.items()]
        path.write_text("\n".join([*lines, more]) + "\n", encoding="utf-8")
        return path

    return write


@pytest.fixture
def refused(capsys, tmp_path):
    """Launch what is bad; gives the exit code and what was said."""

    def launch(*arguments, home=None):
        home = home or tmp_path / "home"
        before = sorted(tmp_path.rglob("*"))
        started = time.monotonic()
        exit_code = main(["launch", *map(str, arguments), "--home", str(home), "--json"])
        assert time.monotonic() - started < 5, "what is wrong is not told at once"
        said = capsys.readouterr()
        outcome = {"outcome": "infeasible"} if exit_code == 3 else {}
        answer = {"error": said.err.strip(), "exit_code": exit_code, **outcome}
        assert json.loads(said.out) == answer
        assert "Traceback" not in said.err
        assert sorted(tmp_path.rglob("*")) == before, "something was begun"
        return exit_code, said.err.strip()

    return launch


@pytest.mark.parametrize("case", BAD_JOBS)
def test_a_bad_job_is_refused_in_one_line(case, job, refused):
    changes, more, words = BAD_JOBS[case]
    exit_code, said = refused(job(more, **changes))
    assert exit_code == 2
    assert len(said.splitlines()) == 1
    assert re.search(words, said)


def test_an_anchor_bomb_is_refused_and_not_written_out(job, refused):
    exit_code, said = refused(job(BOMB))
    assert exit_code == 2
    assert "anchors and aliases (&, *) are not supported" in said
    # Nine lines of nine aliases each, and not 9**9 of anything.
    assert len(said) < 20_000


def test_every_mistake_is_told_at_once_in_the_order_of_the_file(job, refused):
    exit_code, said = refused(job(zero="{stage: 9}", resources="{workers: 0}", model="{family: x}"))
    assert exit_code == 2
    places = [int(line.split(":")[1]) for line in said.splitlines()]
    assert places == [2, 5, 6]


@pytest.mark.parametrize("case", BAD_SETTINGS)
def test_a_bad_setting_is_refused_by_its_own_words(case, job, refused):
    setting, words = BAD_SETTINGS[case]
    exit_code, said = refused(job(), "--set", setting)
    assert exit_code == 2
    assert len(said.splitlines()) == 1
    assert re.search(words, said)


@pytest.mark.parametrize("case", TOO_MUCH)
def test_what_the_machine_has_not_is_told_with_exit_code_3(case, job, refused):
    setting, words = TOO_MUCH[case]
    exit_code, said = refused(job(), "--set", setting)
    assert exit_code == 3
    assert len(said.splitlines()) == 1
    assert re.search(words, said)


def test_what_the_machine_has_not_is_told_with_its_place_in_the_file(job, refused):
    exit_code, said = refused(job(resources="{workers: 10000, device: cpu}"))
    assert exit_code == 3
    assert re.search(r"job\.yaml:6:13: resources\.workers: 10000 workers", said)


def test_a_tracking_store_below_a_folder_that_is_not_there_is_refused(job, refused):
    exit_code, said = refused(job("tracking: {uri: 'sqlite:////nonexistent/dir/x.db'}"))
    assert exit_code == 2
    assert re.search(r"job\.yaml:7:12: tracking\.uri: there is no folder /nonexistent, in", said)
    assert not Path("/nonexistent").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no such file; give the path of a job file"),
        (b"", "empty"),
        (b"\n# nothing\n", "empty"),
        (b"\xff\xfe\x00", "save the file as UTF-8"),
        (b"just text\n", "expected keys such as name: and model:"),
        (b"- a\n- b\n", "expected keys such as name: and model:"),
    ],
    ids=["missing", "empty", "comments", "not UTF-8", "text", "list"],
)
def test_what_is_no_job_file_is_told(content, words, tmp_path, refused):
    path = tmp_path / "job.yaml"
    if content is not None:
        path.write_bytes(content)
    exit_code, said = refused(path)
    assert exit_code == 2
    assert said.startswith(str(path))
    assert words in said


def test_a_folder_is_no_job_file(tmp_path, refused):
    exit_code, said = refused(tmp_path)
    assert exit_code == 2
    assert "a folder" in said


@pytest.mark.parametrize("home", ["job.yaml", "job.yaml/below", "/dev/full", "/proc/nothing"])
def test_a_state_folder_that_cannot_be_written_is_told(home, job, refused, tmp_path):
    exit_code, said = refused(job(), home=tmp_path / home)
    assert exit_code == 2
    assert re.search(r"^state folder .* cannot be written: .*; choose another with --home", said)


def test_one_process_is_one_worker(job, refused):
    exit_code, said = refused(job(resources="{workers: 2, cpus_per_worker: 0.1}"), "--in-process")
    assert exit_code == 2
    assert "--in-process runs one worker" in said
    assert said.endswith("asks for 2; add --set resources.workers=1")


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("nonsense", "'nonsense' is not host:port; write one such as host:6379"),
        ("head:ninety", "'head:ninety' is not host:port"),
        ("ray://head:10001", "give the head's host:port"),
        ("http://head:8265", "give the head's host:port"),
        ("127.0.0.1:1", "no Ray cluster answers at 127.0.0.1:1: Connection refused; start one"),
        ("nowhere.invalid:6379", "no Ray cluster answers at nowhere.invalid:6379: "),
    ],
)
@pytest.mark.parametrize("by", ["--address", "RAY_ADDRESS"])
def test_an_address_without_a_cluster_is_told(by, address, words, job, refused, monkeypatch):
    if by == "RAY_ADDRESS":
        monkeypatch.setenv("RAY_ADDRESS", address)
        exit_code, said = refused(job())
    else:
        exit_code, said = refused(job(), "--address", address)
    assert exit_code == 2
    assert words in said
    assert len(said.splitlines()) == 1


def test_in_process_and_a_cluster_exclude_each_other(job, refused):
    exit_code, said = refused(job(), "--in-process", "--address", "head:6379")
    assert exit_code == 2
    assert said.endswith("keep one of the two")


def test_a_port_in_use_is_told_with_a_free_one(capsys, tmp_path):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        assert main(["ui", "--port", str(port), "--home", str(tmp_path / "home")]) == 2
    assert re.fullmatch(rf"port {port} is in use; \d+ is free\n", capsys.readouterr().err)
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ([], "the following arguments are required: VERB; see orchestrator --help"),
        (["lunch"], "argument VERB: invalid choice: 'lunch'"),
        (["launch"], "the following arguments are required: JOB; see orchestrator launch --help"),
        (["launch", "job.yaml", "--wrong"], "unrecognized arguments: --wrong"),
        (["ui", "--port", "many"], "argument --port: invalid int value: 'many'"),
    ],
    ids=["nothing", "unknown verb", "no job", "unknown option", "no number"],
)
def test_a_wrong_command_is_told_in_one_line(command, words, capsys):
    assert main([*command, "--json"]) == 2
    said = capsys.readouterr()
    assert len(said.err.splitlines()) == 1
    assert said.err.startswith(words)
    assert json.loads(said.out) == {"error": said.err.strip(), "exit_code": 2}


def test_without_json_nothing_stands_on_stdout_when_input_is_wrong(job, capsys):
    assert main(["validate", str(job(zero="{stage: 9}"))]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "zero.stage" in said.err


def test_a_valid_job_is_shown_with_what_was_filled_in(job, capsys):
    assert main(["validate", str(job()), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["valid"] is True
    assert shown["job"]["training"]["optimizer"]["name"] == "adamw"
    # Ten digits, in images of 8 x 8 and one channel.
    config = shown["job"]["model"]["config"]
    assert (config["input_size"], config["num_labels"]) == (64, 10)


def test_a_plan_shows_the_dict_that_deepspeed_gets(job, capsys):
    assert main(["plan", str(job(zero="{stage: 2}")), "--json", "--no-forecast"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["deepspeed"]["zero_optimization"]["stage"] == 2
    assert plan["deepspeed"]["train_batch_size"] == 16
    assert plan["batch"]["accumulation_steps"] == 4

    assert main(["plan", str(job(zero="{stage: 2}")), "--no-forecast"]) == 0
    text = capsys.readouterr().out
    assert json.loads(text.partition("DeepSpeed gets\n")[2]) == plan["deepspeed"]


def test_a_plan_makes_no_state_folder(job, tmp_path):
    assert main(["plan", str(job()), "--no-forecast", "--home", str(tmp_path / "home")]) == 0
    assert not (tmp_path / "home").exists()


def test_the_schema_is_that_of_the_editors(capsys):
    assert main(["schema"]) == 0
    kept = Path(__file__).parents[1] / "orchestrator" / "spec" / "job.schema.json"
    assert json.loads(capsys.readouterr().out) == json.loads(kept.read_text(encoding="utf-8"))


def test_doctor_answers_in_json_with_a_mend_for_all_that_is_missing(capsys, tmp_path):
    exit_code = main(["doctor", "--json", "--home", str(tmp_path / "home")])
    findings = json.loads(capsys.readouterr().out)["findings"]
    missing = [finding for finding in findings if finding["level"] == "missing"]
    assert exit_code == (1 if missing else 0)
    assert all(finding["mend"] for finding in missing)
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    "arguments", [["--help"], ["launch", "--help"], ["validate", "job.yaml"], ["schema"]]
)
def test_quick_verbs_import_nothing_heavy(arguments, job):
    job()
    code = (
        "import sys; from orchestrator.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        f"print(*sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    assert done.stderr.split() == []
    assert done.stdout


def test_a_reader_that_goes_away_is_no_traceback(job):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator", "plan", str(job()), "--no-forecast"],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert done.stderr == ""
    assert done.returncode == 1


# Arguments of `forecast` -> how the one line begins that is told.
BAD_FORECASTS = {
    "": "say what to forecast: a job file, or --params 7.5e9",
    "--grid --device h200": "say what to forecast: a job file",
    "job.yaml --params 7.5e9": "a job file and --params do not go together; keep one of the two",
    "--params 1e9 --devices": "--params and --devices do not go together",
    "--accuracy --devices": "--accuracy and --devices do not go together",
    "job.yaml --accuracy": "a job file and --accuracy do not go together",
    "--params 1e9 --workers 0": "--workers is 0; there is at least one",
    "job.yaml --workers -2": "--workers is -2; there is at least one",
    "job.yaml --ranks-per-node -1": "--ranks-per-node is -1; there is at least one",
    "job.yaml --ranks-per-node 0": "--ranks-per-node is 0; there is at least one",
    "--params 1e9 --workers two": "argument --workers: invalid int value: 'two'",
    "--params many": "argument --params: invalid float value: 'many'",
    "--params nan": "--params is nan; give a number of parameters, as 7.5e9",
    "--params inf": "--params is inf; give a number of parameters",
    "--params 0": "--params is 0; give a number of parameters",
    "--params 0.5": "--params is 0.5; give a number of parameters",
    "--params 1e9 --precision fp8": "argument --precision: invalid choice: 'fp8'",
    "--params 1e9 --optimizer adamx": "argument --optimizer: invalid choice",
    "--params 1e9 --device b2000": "unknown device 'b2000'; did you mean 'b200'?",
    "job.yaml --device h20": "unknown device 'h20'; did you mean 'h200'? known are ",
    "job.yaml --device toaster": "unknown device 'toaster'; known are v100, t4, ",
    "job.yaml --set zero.stge=1": "--set zero.stge=1: zero.stge: unknown key; did you mean 'stage'",
    "job.yaml --rank 1": "--rank is 1; there are 0 to 0",
    "job.yaml --rank -1": "--rank is -1; there are 0 to 0",
    "nowhere.yaml": "nowhere.yaml: no such file; ",
}


@pytest.mark.parametrize("arguments", BAD_FORECASTS)
def test_what_cannot_be_forecast_is_told_in_one_line(arguments, job, capsys, tmp_path):
    job()
    command = ["forecast", *arguments.split(), "--home", str(tmp_path / "home"), "--json"]
    assert main(command) == 2
    said = capsys.readouterr()
    assert len(said.err.splitlines()) == 1
    assert said.err.startswith(BAD_FORECASTS[arguments])
    assert json.loads(said.out) == {"error": said.err.strip(), "exit_code": 2}
    assert not (tmp_path / "home").exists()


def test_a_job_that_is_wrong_is_not_forecast(job, capsys):
    path = job(zero="{stage: 9}", resources="{workers: 0}")
    assert main(["forecast", str(path)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert [line.split(":")[1] for line in said.err.splitlines()] == ["5", "6"]


def test_a_mere_size_is_forecast_for_every_stage(capsys):
    command = ["forecast", "--params", "7.5e9", "--workers", "64"]
    assert main([*command, "--json"]) == 0
    said = capsys.readouterr()
    rows = json.loads(said.out)["rows"]
    assert [row["stage"] for row in rows[:4]] == [0, 1, 2, 3]
    # ZeRO (arXiv:1910.02054), figure 1, in GB.
    ideal = [row["ideal_states_bytes"] / 1e9 for row in rows[:4]]
    assert ideal == pytest.approx([120, 31.4, 16.6, 1.9], abs=0.05)
    # What a person reads stands on stderr then, and on stdout without --json.
    assert main(command) == 0
    assert capsys.readouterr().out == said.err
    assert "7,500,000,000 parameters" in said.err


def test_devices_are_listed_with_what_they_can_do(capsys):
    assert main(["forecast", "--devices", "--json"]) == 0
    said = capsys.readouterr()
    devices = {device["name"]: device for device in json.loads(said.out)["rows"]}
    assert len(devices) == len(said.err.splitlines()) - 1
    # H100's white paper and H200's data sheet.
    assert devices["H100 SXM"]["flops_per_s"]["bf16"] == 989.4e12
    assert devices["H200 SXM"]["memory_bytes"] == 141 * 10**9


def test_before_the_first_run_no_forecast_is_known_to_be_off(capsys, tmp_path):
    command = ["forecast", "--accuracy", "--home", str(tmp_path / "home")]
    assert main([*command, "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out) == {"rows": []}
    assert said.err == "No run has left a receipt yet; launch a job first\n"
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--params", "7.5e9", "--workers", "64", "--json"],
        ["--devices"],
        ["--accuracy"],
    ],
    ids=" ".join,
)
def test_the_arithmetic_of_a_forecast_imports_nothing_heavy(arguments):
    code = (
        "import sys; from orchestrator.cli import main\n"
        "exit_code = main(['forecast', *sys.argv[1:]])\n"
        f"print(exit_code, *sorted({HEAVY | {'matplotlib'}!r} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "0"
