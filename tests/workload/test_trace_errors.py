"""Bad traces: each gets an InputError that names the file and the line, never a traceback of ours."""

import contextlib
import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trilemma.errors import InputError
from trilemma.workload.traces import read_trace

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n"
GOOD = "2023-11-16 18:15:47.6805900,374,44\n"
SIMPLE = "arrival_s,prompt_tokens,output_tokens\n0,10,1\n"
VIDUR = "arrived_at,num_prefill_tokens,num_decode_tokens\n0,10,1\n"
BURSTGPT = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,ChatGPT,472,18,490,API log\n"
MOONCAKE = '{"timestamp": 0, "input_length": 600, "output_length": 5, "hash_ids": [1, 2]}\n'


def row(**change):
    return json.dumps({"timestamp": 0, "input_length": 600, "output_length": 5, "hash_ids": [1, 2]} | change) + "\n"


LINES = [
    # text, line at fault, words in the message
    (AZURE + GOOD + "2023-11-16 18:15:48.0,374\n" + GOOD, 4, "3 fields"),
    (AZURE + GOOD + "2023-11-16 18:15:48.0,374,44,5\n", 4, "3 fields"),
    (AZURE + GOOD + "2023-11-16 18:1", 4, "3 fields"),
    (AZURE + '"2023-11-16 18:15:48.0,374,44\n', 3, "3 fields"),
    (AZURE + "\n\nyesterday,374,44\n", 5, "TIMESTAMP such as"),
    (AZURE + "2023-13-16 18:15:48.0,374,44\n", 3, "TIMESTAMP such as"),
    (AZURE + "2023-11-16 18:15:48.0+00:00,374,44\n", 3, "time zone on each line or on none"),
    (AZURE + "2023-11-16 18:15:48.0,many,44\n", 3, "whole number in ContextTokens"),
    (AZURE + "2023-11-16 18:15:48.0,3.5,44\n", 3, "whole number in ContextTokens"),
    (AZURE + "2023-11-16 18:15:48.0,nan,44\n", 3, "whole number in ContextTokens"),
    (AZURE + "2023-11-16 18:15:48.0,1_000,44\n", 3, "whole number in ContextTokens"),
    (AZURE + "2023-11-16 18:15:48.0,,44\n", 3, "whole number in ContextTokens"),
    (AZURE + "2023-11-16 18:15:48.0,374,0\n", 3, "at least 1 token in GeneratedTokens, found 0"),
    (AZURE + "2023-11-16 18:15:48.0,0,44\n", 3, "at least 1 token in ContextTokens, found 0"),
    (AZURE + "2023-11-16 18:15:48.0,-374,44\n", 3, "found -374"),
    (AZURE + "2023-11-16 18:15:48.0,2147483648,44\n", 3, "at most 2^31 - 1 tokens"),
    (AZURE + f"2023-11-16 18:15:48.0,{10**40},44\n", 3, "at most 2^31 - 1 tokens"),
    (AZURE + "2023-11-16 18:15:48.0,1e300,44\n", 3, "whole number in ContextTokens"),
    (SIMPLE + "nan,10,1\n", 3, "finite and not negative, found nan"),
    (SIMPLE + "inf,10,1\n", 3, "finite and not negative, found inf"),
    (SIMPLE + "-1,10,1\n", 3, "finite and not negative, found -1"),
    (SIMPLE + "soon,10,1\n", 3, "arrival_s in seconds, found 'soon'"),
    (SIMPLE + "1_0,10,1\n", 3, "arrival_s in seconds"),
    (SIMPLE + "é,10,1\n", 3, "arrival_s in seconds"),
    (SIMPLE + "1;10;1\n", 3, "3 fields"),
    (SIMPLE.replace("output_tokens", "output_tokens,colour").replace("0,10,1", "0,10,1,red"), 1, "colour"),
    (SIMPLE.replace("output_tokens", "output_tokens,arrival_s"), 1, "each column once"),
    (SIMPLE + '1,"1"0,1\n', 3, "3 fields"),
    (VIDUR + "1,10,0\n", 3, "at least 1 token in num_decode_tokens"),
    (BURSTGPT + "6,ChatGPT,0,18,18,API log\n", 3, "at least 1 token in Request tokens"),
    (BURSTGPT + "6,ChatGPT,5,-1,18,API log\n", 3, "at least 1 token in Response tokens"),
    (BURSTGPT + "6,ChatGPT,5,0,5,API log\n7,ChatGPT,0,5,5,API log\n", 4, "at least 1 token in Request tokens"),
    (MOONCAKE + MOONCAKE + '{"timestamp": 0, "input_le', 3, "a JSON object on one line"),
    (MOONCAKE + "[1, 2]\n", 2, "a JSON object on one line"),
    (MOONCAKE + MOONCAKE.strip() + MOONCAKE, 2, "a JSON object on one line"),
    (MOONCAKE + '{"timestamp": 0, "input_length": 600}\n', 2, "no output_length"),
    (MOONCAKE + '\n{"timestamp": 0, "input_length": 600, "output_length": 5}\n', 3, "hash_ids on each line"),
    (MOONCAKE + row(timestamp="0"), 2, "timestamp in milliseconds"),
    (MOONCAKE + row(timestamp=None), 2, "timestamp in milliseconds"),
    (MOONCAKE + row(timestamp=float("nan")), 2, "finite"),
    (MOONCAKE + row(timestamp=float("inf")), 2, "finite"),
    (MOONCAKE + row(timestamp=10**400), 2, "finite"),
    (MOONCAKE + row(timestamp=-5), 2, "not negative"),
    (MOONCAKE + row(input_length=600.5), 2, "whole number in input_length"),
    (MOONCAKE + row(output_length=[5]), 2, "whole number in output_length"),
    (MOONCAKE + row(output_length=0), 2, "at least 1 token in output_length"),
    (MOONCAKE + row(output_length=2**31), 2, "at most 2^31 - 1"),
    (MOONCAKE + row(output_length=2**80), 2, "at most 2^31 - 1"),
    (MOONCAKE + row(hash_ids=[1, 2, 3]), 2, "at most 2 hash_ids of 512 tokens for a prompt of 600, found 3"),
    (MOONCAKE + row(hash_ids=[1, -2]), 2, "from 0 up"),
    (MOONCAKE + row(hash_ids=[1, "2"]), 2, "list of whole numbers"),
    (MOONCAKE + row(hash_ids=[1, 2**63]), 2, "list of whole numbers"),
    (MOONCAKE + row(hash_ids=7), 2, "list of whole numbers"),
    (MOONCAKE + row(hash_ids=None), 2, "list of whole numbers"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "words"), LINES)
def test_the_line_at_fault_is_named(tmp_path, text, line, words):
    path = tmp_path / "trace"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_trace(path)
    assert caught.value.where == f"{path}:{line}"
    assert words in str(caught.value)


def test_a_count_written_as_text_is_read_in_json_too(tmp_path):
    path = tmp_path / "trace"
    path.write_text(MOONCAKE + row(output_length="5"))
    assert read_trace(path).requests.output_tokens.tolist() == [5, 5]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "an empty file"),
        (b"\n \n\n", "an empty file"),
        (gzip.compress(b""), "an empty file"),
        (b"TIMESTAMP,ContextTokens,GeneratedTokens\n", "at least one request, found none"),
        (BURSTGPT.replace(",18,", ",0,").encode(), "at least one request, found none"),
        (b"\x00\x01\x02binary", "found binary data"),
        (SIMPLE.encode("utf-16"), ""),
        (b"arrival_s,prompt_tokens,output_tokens\n\xff\xfe,1,1\n", ":2: expected a text file in UTF-8"),
        (gzip.compress(SIMPLE.encode())[:-12], "a damaged one"),
        (b"\x1f\x8bnot gzip at all", "a damaged one"),
        (b"when,in,out\n1,2,3\n", ":1: expected the first line of a known trace: azure ("),
        (b'{"time": 3}\n', "mooncake (JSON lines with"),
        (b'[{"prompt": "hello"}]\n', "the first line of a known trace"),
        (b'{"timestamp": 0, "input_length": 9, "output_length": 1, "chat_id": 7}\n', "further keys chat_id"),
        (b"num_prefill_tokens,num_decode_tokens\n1,2\n", "no arrival times"),
        (b'"unclosed\n', "the first line of a known trace"),
    ],
)
def test_a_file_that_is_no_trace_is_told(tmp_path, content, words):
    path = tmp_path / "trace"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_trace(path)
    assert caught.value.where.startswith(str(path))
    assert words in str(caught.value)
    assert caught.value.exit_code == 2


def test_missing_files_get_the_nearest_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tuesday.csv").write_text(SIMPLE)
    with pytest.raises(InputError, match=r"no such file.*nearest: azure_2023_conv"):
        read_trace("azure_2023_con")
    with pytest.raises(InputError, match=r"no such file.*nearest: .*tuesday.csv"):
        read_trace("tuesdy.csv", base=tmp_path)
    with pytest.raises(InputError, match="no such file"):
        read_trace("nowhere/at/all.csv")
    with pytest.raises(InputError, match="found a directory"):
        read_trace(tmp_path)
    with pytest.raises(InputError, match="not a regular file"):
        read_trace("/dev/null")
    for name in ("", " ", "a\0b", "x" * 5000, "~nobody_of_this_name/x"):
        with pytest.raises(InputError):
            read_trace(name)


def test_formats_are_checked(tmp_path):
    path = tmp_path / "trace"
    path.write_text(SIMPLE)
    with pytest.raises(InputError, match=r"auto or one of azure, .*nearest: mooncake"):
        read_trace(path, format="moncake")
    with pytest.raises(InputError, match=r":1: expected a header with TIMESTAMP"):
        read_trace(path, format="azure")
    with pytest.raises(InputError, match=r":1: expected a JSON object"):
        read_trace(path, format="mooncake")


def test_steps_back_in_time_are_an_error_if_not_to_be_sorted(tmp_path):
    path = tmp_path / "trace"
    path.write_text(SIMPLE + "5,1,1\n4,1,1\n")
    with pytest.raises(InputError, match=r":4: expected arrival_s no earlier"):
        read_trace(path, sort=False)


@given(st.sampled_from([AZURE, SIMPLE, BURSTGPT, MOONCAKE]), st.integers(0, 400), st.binary(max_size=4), st.booleans())
def test_no_damage_ends_in_anything_but_input_error(tmp_path_factory, text, at, splice, packed):
    raw = text.encode() * 2
    raw = raw[:at] + splice + raw[at + 1 :]
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(gzip.compress(raw)[: len(raw)] if packed else raw)
    with contextlib.suppress(InputError):
        assert len(read_trace(path).requests) >= 1
