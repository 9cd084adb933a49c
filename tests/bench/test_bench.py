"""`trilemma bench` as a whole, through the command line, against a server in a thread."""

import csv
import json

import pytest

from tests.bench.sending import probing
from tests.bench.server import Server, in_thread
from trilemma.api import benching
from trilemma.cli.frame import run

FIXED = (
    "--prompt-tokens",
    "24",
    "--output-tokens",
    "5",
    "--requests",
    "30",
    "--warmup",
    "2",
    "--max-client-lag",
    "10 s",
)


@pytest.fixture
def says(capsys):
    def say(*arguments):
        code = run(["bench", *(str(argument) for argument in arguments)])
        out, err = capsys.readouterr()
        return code, out, err

    return say


def test_a_measurement_speaks_as_a_simulation_does(says, tmp_path):
    with in_thread(Server()) as server:
        code, out, err = says(
            server.url, *FIXED, "--concurrency", 3, "--limit", "ttft p99 <= 1 h", "-o", "json",
            "--requests-file", tmp_path / "r.csv", "--tokens-file", tmp_path / "t.csv",
        )  # fmt: skip
    assert code == 0, err
    result = json.loads(out)
    assert result["finished"] == result["requests"] == 30
    assert result["sent"] == {"done": 30, "refused": 0, "failed": 0, "timed_out": 0}
    assert result["latencies"]["ttft_p99_s"] > 0
    assert result["limits"][0]["met"] is True
    assert result["valid"] is result["complete"] is True
    assert result["tokens"]["output_counted"] == result["tokens"]["chunks"] == 150
    with (tmp_path / "r.csv").open() as file:
        rows = list(csv.DictReader(file))
    expected = ["request", "arrival_s", "queued_s", "ttft_s", "tpot_s", "e2e_s", "prompt_tokens", "output_tokens"]
    assert list(rows[0])[:8] == expected
    assert [int(row["request"]) for row in rows] == list(range(30))
    assert {row["status"] for row in rows} == {"finished"}
    with (tmp_path / "t.csv").open() as file:
        tokens = list(csv.DictReader(file))
    assert len(tokens) == 150
    assert [int(token["chunk"]) for token in tokens[:6]] == [0, 1, 2, 3, 4, 0]
    assert len(server.asked) == 30 + 2 + 2, "two warm-up requests, one to find out, and one of the longest"


def test_a_scenario_gives_load_and_limits(says, tmp_path):
    scenario = tmp_path / "s.yaml"
    scenario.write_text(
        "version: 1\nmodel: meta-llama/Meta-Llama-3.1-8B\nworkload:\n"
        "  arrivals: {process: closed_loop, concurrency: 2, requests: 10}\n"
        "  lengths: {prompt: {distribution: fixed, tokens: 16}, output: {distribution: fixed, tokens: 3}}\n"
        "limits: [ttft p99 <= 1 ps]\n"
    )
    with in_thread(Server()) as server:
        code, out, err = says(server.url, "--scenario", scenario, "--max-client-lag", "10 s", "--check", "-o", "json")
    assert code == 4, err
    assert "limits missed: ttft p99" in err
    assert json.loads(out)["load"]["concurrency"] == 2


def test_a_run_that_breaks_off_is_written_and_exits_with_4(says, tmp_path):
    async def dies(server, say):
        if probing(say.asked) or len(server.asked) < 12:
            await say.whole()
        else:
            server.stop()
            say.die()

    with in_thread(Server(dies)) as server:
        code, out, err = says(
            server.url,
            *FIXED,
            "--requests",
            200,
            "--concurrency",
            1,
            "-o",
            "json",
            "--requests-file",
            tmp_path / "r.csv",
        )
    assert code == 4
    assert "broke off: 20 requests in a row failed" in err
    result = json.loads(out)
    assert result["complete"] is False
    assert result["load"]["unsent"] + sum(result["sent"].values()) == 200
    assert len((tmp_path / "r.csv").read_text().splitlines()) == 1 + sum(result["sent"].values())


def test_a_client_that_was_too_slow_says_so(says):
    with in_thread(Server()) as server:
        code, out, err = says(server.url, *FIXED, "--concurrency", 2, "--max-client-lag", "1 ps", "-o", "json")
    result = json.loads(out)
    # A hundredth of the server's own time is allowed in any case.
    if result["valid"]:
        pytest.skip("the server was slower than the client by a factor of a hundred")
    assert code == 4
    assert "not valid: the client" in err


def test_the_knee_needs_limits_and_knows_its_steps(says):
    with in_thread(Server()) as server:
        code, _, err = says(server.url, *FIXED, "--concurrency", 1, "--find-knee")
    assert code == 2
    assert "--find-knee: expected limits" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--prompt-tokens", "8"), "--prompt-tokens and --output-tokens together"),
        ((), "one of --scenario, --trace"),
        (("--trace", "azure_2023_conv", *FIXED[:4]), "one of --scenario, --trace"),
        (FIXED[:4], "--rate or --concurrency"),
        ((*FIXED[:4], "--rate", "5"), "--rate: expected a rate with a unit"),
        ((*FIXED[:4], "--rate", "5 req/s", "--concurrency", "3"), "no rate where clients set it"),
        ((*FIXED[:4], "--concurrency", "3", "--api", "chats"), "did you mean 'chat'"),
        ((*FIXED[:4], "--concurrency", "3", "--timeout", "0 s"), "--timeout: expected a time above zero"),
        ((*FIXED[:4], "--concurrency", "3", "--limit", "ttft <= 1 s"), "--limit: expected a statistic"),
        ((*FIXED[:4], "--concurrency", "3", "--api-key-env", "NOT_THERE_AT_ALL"), "nothing in it"),
        ((*FIXED[:4], "--concurrency", "3", "--max-model-len", "8"), "at least one to send, found none left"),
        ((*FIXED[:4], "--concurrency", "3", "--find-knee", "--duration", "5 s"), "--knee-step beside --find-knee"),
        ((*FIXED[:4], "--concurrency", "3", "--set", "model=x"), "--set: expected a scenario to change"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_sent(says, tmp_path, arguments, said):
    kept = tmp_path / "r.csv"
    kept.write_text("precious")
    code, out, err = says("http://127.0.0.1:9", *arguments, "--requests-file", kept)
    assert (code, out) == (2, "")
    assert said in err
    assert kept.read_text() == "precious"


def test_a_refused_server_overwrites_nothing(says, tmp_path):
    kept = tmp_path / "r.csv"
    kept.write_text("precious")
    with in_thread(Server(models=["a", "b"])) as server:
        code, out, err = says(server.url, *FIXED, "--concurrency", 1, "--requests-file", kept)
    assert (code, out) == (2, "")
    assert "one of the server's models: a, b" in err
    assert kept.read_text() == "precious"


def test_lengths_the_server_refuses_are_left_out_when_asked(says):
    with in_thread(Server(card={"max_model_len": 500})) as server:
        code, _, err = says(server.url, "--trace", "azure_2023_conv", "--requests", 20, "-q")
        assert code == 2
        assert "context of 500 tokens" in err
        assert "--max-model-len" in err
        code, out, err = says(
            server.url, "--trace", "azure_2023_conv", "--requests", 5, "--max-model-len", 500, "--rate-scale", 1000,
            "-q", "-o", "json", "--max-client-lag", "10 s",
        )  # fmt: skip
    assert code == 0, err
    result = json.loads(out)
    assert result["finished"] == 5
    assert "too long and were left out" in result["notes"][0]


def test_a_key_is_read_from_the_environment_alone_and_shown_nowhere(says, monkeypatch):
    monkeypatch.setenv("MY_KEY", "sesame")
    with in_thread(Server()) as server:
        code, out, err = says(server.url, *FIXED, "--concurrency", 1, "--api-key-env", "MY_KEY", "-o", "json")
    assert code == 0, err
    assert "sesame" not in out + err
    assert all("Bearer sesame" in head for head in server.heads)
    code, out, err = says("http://h.example", *FIXED, "--concurrency", 1, "--api-key-env", "MY_KEY")
    assert code == 2
    assert "--insecure-credentials" in err
    assert "sesame" not in out + err


def test_a_warm_up_that_is_not_answered_ends_it(says):
    async def tired(server, say):
        await (say.whole() if probing(say.asked) else say.refuse(500, "too tired"))

    with in_thread(Server(tired, card={"max_model_len": 100})) as server:
        code, out, err = says(server.url, *FIXED, "--concurrency", 1)
    assert (code, out) == (2, "")
    assert "warm-up" in err
    assert "too tired" in err


def test_a_progress_function_that_says_no_ends_the_run_with_what_it_has():
    async def slow_after_ten(server, say):
        if not probing(say.asked) and len(server.asked) > 12:
            await say.head()
            await say.token()
            await server.never.wait()
        else:
            await say.whole()

    import asyncio

    server = Server(slow_after_ten)
    server.never = asyncio.Event()
    with in_thread(server):
        result = benching.bench(
            server.url,
            source=benching.Source(prompt_tokens=8, output_tokens=3),
            pace=benching.Pace(concurrency=2, requests=40),
            options=benching.BenchOptions(warmup=0),
            progress=lambda live: live.endings["done"] < 5,
        )
    assert result["stopped"] == benching.STOPPED
    assert result["sent"]["failed"] == 2
    assert result["load"]["unsent"] == 40 - sum(result["sent"].values())
