"""Bad rows are refused with file, key, expectation and finding."""

import pytest

from trilemma.catalogue.catalogue import load_catalogue
from trilemma.catalogue.dates import day_of
from trilemma.errors import InputError

BOUNDS = '[accelerators.h100_sxm]\ntdp_w = {{ value = 9, {}, source = "vendor", as_of = "2026", reference = "r" }}'
FIGURE = '{{ value = {}, source = "{}", as_of = "{}", reference = "{}" }}'
OFFER = """[[offers]]
name = "h100_sxm/quote"
accelerator = "h100_sxm"
kind = "{kind}"
market = "quote"
purchase_unit_gpus = 8
price = {price}
source = "{source}"
as_of = "{as_of}"
reference = "{reference}"
{more}
"""


def tdp(value="650", source="vendor", as_of="2026-11", reference="quote"):
    return "[accelerators.h100_sxm]\ntdp_w = " + FIGURE.format(value, source, as_of, reference)


def offer(kind="on-demand", price="2.0", source="vendor", as_of="2026-11", reference="quote", more=""):
    return OFFER.format(kind=kind, price=price, source=source, as_of=as_of, reference=reference, more=more)


AT = r"mine\.toml: accelerators\.h100_sxm\.tdp_w"
CASES = {
    "unknown table": ("[gpus.x]\n", r"mine\.toml: gpus: expected one of the tables models, accelerators"),
    "unknown key": (
        "[accelerators.h100_sxm]\nspeed = 1\n",
        r"mine\.toml: accelerators\.h100_sxm\.speed: expected a known key",
    ),
    "unknown key of a number": (BOUNDS.format('unit = "W"'), AT + r"\.unit: expected a known key"),
    "negative": (tdp("-650"), AT + r"\.value: expected a number above 0, found -650"),
    "zero": (tdp("0"), AT + r"\.value: expected a number above 0, found 0"),
    "nan": (tdp("nan"), AT + r"\.value: expected a number above 0, found nan"),
    "infinite": (tdp("inf"), AT + r"\.value: .*found inf"),
    "a text for a number": (tdp('"650"'), AT + r"\.value: .*found '650'"),
    "true for a number": (tdp("true"), AT + r"\.value: .*found True"),
    "a bare number": (
        "[accelerators.h100_sxm]\ntdp_w = 650",
        AT + r": expected a table of value, source.*found the number 650",
    ),
    "a bare negative number": ("[accelerators.h100_sxm]\ntdp_w = -1", AT + r": expected a number above 0, found -1"),
    "value above high": (
        BOUNDS.format("low = 1, high = 8"),
        AT + r"\.value: expected low <= value <= high, found 1, 9, 8",
    ),
    "value below low": (BOUNDS.format("low = 10"), AT + r"\.value: expected low <= value <= high, found 10, 9, 9"),
    "unknown source": (
        tdp(source="rumour"),
        AT + r"\.source: expected one of measured, fitted, derived, vendor, guess",
    ),
    "date in words": (tdp(as_of="November 2026"), AT + r"\.as_of: expected an ISO date.*found 'November 2026'"),
    "date that does not exist": (tdp(as_of="2026-02-30"), AT + r"\.as_of: expected an ISO date"),
    "month that does not exist": (tdp(as_of="2026-13"), AT + r"\.as_of: expected an ISO date"),
    "no reference": (tdp(reference=" "), AT + r"\.reference: expected a text that is not empty"),
    "missing field of a new row": (
        '[accelerators.new]\ntitle = "x"',
        r"mine\.toml: accelerators\.new\.hbm_bytes: .*found nothing",
    ),
    "flops without bf16": (
        "[accelerators.h100_sxm.flops]\nbf32 = " + FIGURE.format(1, "vendor", "2026", "r"),
        r"accelerators\.h100_sxm\.flops\.bf32: expected a known key",
    ),
    "an alias twice": (
        '[accelerators.l4]\naliases = ["h100"]',
        r"mine\.toml: accelerators\.l4: expected an alias no other",
    ),
    "a table that is none": ("accelerators = 3", r"mine\.toml: accelerators: expected a table, found 3"),
    "a row that is none": ("[accelerators]\nh100_sxm = 3", r"mine\.toml: accelerators\.h100_sxm: expected a table"),
    "flops that are none": ("[accelerators.h100_sxm]\nflops = 3", r"accelerators\.h100_sxm\.flops: expected a table"),
    "half a GPU": (
        "[accelerators.h100_sxm]\ngpus_per_node = 7.5",
        r"gpus_per_node: expected a whole number of at least 1",
    ),
    "aliases that are a text": ('[accelerators.l4]\naliases = "x"', r"aliases"),
    "offer: negative price": (
        offer(price="-2"),
        r"mine\.toml: offers\[0\]\.price: expected a number above 0, found -2",
    ),
    "offer: NaN price": (offer(price="nan"), r"offers\[0\]\.price: .*found nan"),
    "offer: free": (offer(price="0.0"), r"offers\[0\]\.price: expected a number above 0"),
    "offer: currency": (
        offer(more='currency = "EUR"'),
        r"mine\.toml: offers\[0\]\.currency: expected USD, or a currency whose rate.*found 'EUR'.*exchange_rates\.EUR",
    ),
    "offer: a currency in lower case": (
        offer(more='currency = "eur"'),
        r"offers\[0\]\.currency: expected a currency such as EUR, found 'eur'",
    ),
    "offer: missing price": (
        offer().replace("price = 2.0\n", ""),
        r"mine\.toml: offers\[0\]\.price: expected a number above 0, found nothing",
    ),
    "offer: no purchase unit": (
        offer().replace("purchase_unit_gpus = 8\n", ""),
        r"mine\.toml: offers\[0\]\.purchase_unit_gpus: expected .*found nothing",
    ),
    "offer: half a unit": (
        offer().replace("purchase_unit_gpus = 8", "purchase_unit_gpus = 0.5"),
        r"offers\[0\]\.purchase_unit_gpus: expected a whole number of at least 1",
    ),
    "offer: interruptions on demand": (
        offer(more="interruptions_per_h = " + FIGURE.format(0.1, "guess", "2026", "r")),
        r"offers\[0\]\.interruptions_per_h: expected nothing for a kind of on-demand",
    ),
    "offer: interruptions from nowhere": (
        offer(kind="spot", more="interruptions_per_h = 0.1"),
        r"offers\[0\]\.interruptions_per_h: expected a table of value, source.*found the number 0\.1",
    ),
    "offer: negative interruptions": (
        offer(kind="spot", more="interruptions_per_h = " + FIGURE.format(-0.1, "guess", "2026", "r")),
        r"offers\[0\]\.interruptions_per_h\.value: expected a number of at least 0, found -0\.1",
    ),
    "offer: negative start": (
        offer(more="start_s = " + FIGURE.format(-1, "guess", "2026", "r")),
        r"mine\.toml: offers\[0\]\.start_s\.value: expected a number of at least 0, found -1",
    ),
    "offer: start of what is owned": (
        offer(kind="owned", more="start_s = " + FIGURE.format(60, "guess", "2026", "r")),
        r"offers\[0\]\.start_s: expected nothing for a kind of owned",
    ),
    "offer: no time is charged": (
        offer(more="billing_increment_h = 0"),
        r"offers\[0\]\.billing_increment_h: expected a number above 0, found 0",
    ),
    "offer: billing of a term": (
        offer(kind="reserved", more="term_months = 12\nbilling_increment_h = 1"),
        r"offers\[0\]\.billing_increment_h: expected nothing for a kind of reserved",
    ),
    "offer: kind": (offer(kind="rented"), r"offers\[0\]\.kind: expected one of owned, on-demand, reserved, spot"),
    "offer: unknown key": (offer(more="prize = 1"), r"offers\[0\]\.prize: expected a known key"),
    "offer: low above price": (offer(more="low = 3"), r"offers\[0\]\.price: expected low <= price <= high"),
    "offer: accelerator": (
        offer().replace('"h100_sxm"', '"h10"'),
        r"mine\.toml: offers\[0\]\.accelerator: .*found 'h10' \(nearest: h100_sxm",
    ),
    "offer: term on demand": (
        offer(more="term_months = 12"),
        r"offers\[0\]\.term_months: expected nothing for a kind of on-demand",
    ),
    "offer: no term": (offer(kind="reserved"), r"offers\[0\]\.term_months: .*found nothing"),
    "offer: upfront": (
        offer(kind="reserved", more="term_months = 12\nupfront_share = 25"),
        r"upfront_share: expected a share of at most 1",
    ),
    "offer: no name": ("[[offers]]\nprice = 1", r"offers\[0\]\.name: expected a text, found nothing"),
    "offer: twice": (offer() + offer(), r"offers\[1\]\.name: expected each name once"),
    "offer: one table": ("[offers]\nname = 'x'", r"mine\.toml: offers: expected a list of tables"),
    "offer: default": (offer(more='default = "yes"'), r"offers\[0\]\.default: expected true or false"),
    "engine: share above 1": (
        "[engines.vllm]\ngpu_memory_utilization = " + FIGURE.format(92, "vendor", "2026", "r"),
        r"engines\.vllm\.gpu_memory_utilization: expected a share of at most 1, found 92",
    ),
    "engine: no defaults": (
        "[engines.vllm]\nscheduler_defaults = []",
        r"scheduler_defaults: expected a list of tables that is not empty",
    ),
    "engine: no row for small GPUs": (
        "[engines.vllm]\nscheduler_defaults = [{ min_hbm_bytes = 1, max_num_batched_tokens = 1, max_num_seqs = 1 }]",
        r"scheduler_defaults: expected a last row with min_hbm_bytes = 0",
    ),
    "engine: bad row": (
        "[engines.vllm]\nscheduler_defaults = [{ min_hbm_bytes = 0, max_num_batched_tokens = 0, max_num_seqs = 1 }]",
        r"engines\.vllm\.scheduler_defaults\[0\]\.max_num_batched_tokens: expected a whole number",
    ),
    "precision: role": (
        '[precisions.fp8]\nquantised = ["mlps"]',
        r"precisions\.fp8\.quantised: expected a list of attention, mlp",
    ),
    "precision: format": (
        '[precisions.fp8]\ncompute = "fp6"',
        r"precisions\.fp8\.compute: expected one of bf16, fp8, int8, fp4",
    ),
    "precision: bits": (
        "[precisions.fp8]\nbits_per_weight = 32",
        r"precisions\.fp8\.bits_per_weight: expected at most 16 bits",
    ),
    "precision: a rule without a reason": (
        '[precisions.fp8.on.ada]\ncompute = "bf16"',
        r"on\.ada\.reason: expected a text",
    ),
    "economics: unknown": ("[economics]\ntax = 1", r"mine\.toml: economics\.tax: expected a known key"),
    "economics: percent": (
        "[economics]\ndiscount_rate = " + FIGURE.format(9, "guess", "2026", "r"),
        r"economics\.discount_rate: expected a share from 0 to 1, found 9 \(0\.09 is 9%\)",
    ),
    "economics: PUE": (
        "[economics]\npue = " + FIGURE.format(0.9, "guess", "2026", "r"),
        r"economics\.pue: expected a ratio of at least 1",
    ),
    "economics: residual above the price": (
        "[economics]\nresidual_share = " + FIGURE.format(1.2, "guess", "2026", "r"),
        r"mine\.toml: economics\.residual_share: expected a share from 0 to 1, found 1\.2",
    ),
    "economics: no horizon": (
        "[economics]\nhorizon_months = " + FIGURE.format(0, "guess", "2026", "r"),
        r"mine\.toml: economics\.horizon_months\.value: expected a number above 0, found 0",
    ),
    "economics: unknown grid": (
        '[economics]\ngrid_region = "irland"',
        r"mine\.toml: economics\.grid_region: expected the name of a grid region.*'irland' \(nearest: ireland",
    ),
    "economics: two grids": (
        '[economics]\ngrid_region = "us"\ngrid_gco2_per_kwh = ' + FIGURE.format(1, "guess", "2026", "r"),
        r"mine\.toml: economics\.grid_region: expected a region or grid_gco2_per_kwh, found both",
    ),
    "economics: negative carbon": (
        "[economics]\ngrid_gco2_per_kwh = " + FIGURE.format(-1, "guess", "2026", "r"),
        r"economics\.grid_gco2_per_kwh\.value: expected a number of at least 0, found -1",
    ),
    "economics: a rate of a bare number": (
        "[economics]\nexchange_rates = { EUR = 1.08 }",
        r"economics\.exchange_rates\.EUR: expected a table of value, source.*found the number 1\.08",
    ),
    "economics: a rate of zero": (
        "[economics]\nexchange_rates = { EUR = " + FIGURE.format(0, "guess", "2026", "r") + " }",
        r"economics\.exchange_rates\.EUR\.value: expected a number above 0, found 0",
    ),
    "economics: a rate of the dollar": (
        "[economics]\nexchange_rates = { USD = " + FIGURE.format(1, "guess", "2026", "r") + " }",
        r"economics\.exchange_rates\.USD: expected a currency such as EUR, other than USD, found 'USD'",
    ),
    "economics: rates that are none": (
        "[economics]\nexchange_rates = 1.08",
        r"mine\.toml: economics\.exchange_rates: expected a table, found 1\.08",
    ),
    "grid: no title": (
        "[grid.x]\ngco2_per_kwh = " + FIGURE.format(1, "guess", "2026", "r"),
        r"mine\.toml: grid\.x\.title: expected a text, found nothing",
    ),
    "grid: an alias twice": (
        '[grid.x]\ntitle = "X"\naliases = ["usa"]\ngco2_per_kwh = ' + FIGURE.format(1, "guess", "2026", "r"),
        r"mine\.toml: grid\.x: expected an alias no other grid region has, found 'usa'",
    ),
    "engine: effort of an unknown topology": (
        "[engines.vllm.effort.galaxy]\nweeks = " + FIGURE.format(1, "guess", "2026", "r"),
        r"mine\.toml: engines\.vllm\.effort\.galaxy: expected a known key",
    ),
    "engine: negative weeks": (
        "[engines.vllm.effort.node]\nweeks = " + FIGURE.format(-1, "guess", "2026", "r"),
        r"engines\.vllm\.effort\.node\.weeks\.value: expected a number of at least 0, found -1",
    ),
    "engine: effort that is none": (
        "[engines.vllm]\neffort = 3",
        r"mine\.toml: engines\.vllm\.effort: expected a table, found 3",
    ),
    "economics: no life": (
        "[economics]\nmodel_life_months = " + FIGURE.format(0, "guess", "2026", "r"),
        r"model_life_months\.value: expected a number above 0",
    ),
    "api: missing output": (
        '[[api_prices]]\nmodel = "x"\ninput = 1\nsource = "vendor"\nas_of = "2026"\nreference = "r"',
        r"api_prices\[0\]\.output: .*found nothing",
    ),
    "api: negative cached": (
        '[[api_prices]]\nmodel = "x"\ninput = 1\noutput = 1\ncached_input = -1\nsource = "vendor"\nas_of = "2026"\n'
        'reference = "r"',
        r"api_prices\[0\]\.cached_input: expected a number above 0, found -1",
    ),
    "api: currency": (
        '[[api_prices]]\nmodel = "x"\ninput = 1\noutput = 1\nsource = "vendor"\nas_of = "2026"\nreference = "r"\n'
        'currency = "CNY"',
        r"mine\.toml: api_prices\[0\]\.currency: expected USD, or a currency whose rate.*found 'CNY'",
    ),
    "not TOML": ("[accelerators\n", r"mine\.toml: expected well-formed TOML, found .*line 1"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_bad_row_is_refused(case, tmp_path):
    text, expected = CASES[case]
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=expected):
        load_catalogue([path])


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"mine\.toml: expected a catalogue file in TOML, found No such file"):
        load_catalogue([tmp_path / "mine.toml"])


def test_a_folder_is_not_a_file(tmp_path):
    with pytest.raises(InputError, match="expected a catalogue file in TOML"):
        load_catalogue([tmp_path])


def test_a_file_of_other_bytes(tmp_path):
    (tmp_path / "mine.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="UTF-8"):
        load_catalogue([tmp_path / "mine.toml"])


def test_a_bad_model_row_is_refused_at_once(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('[models."me/x"]\nhidden = -1\nvocab = 8\nblocks = []')
    with pytest.raises(InputError, match=r"mine\.toml: models\.me/x"):
        load_catalogue([path])


def test_a_model_may_not_take_anothers_alias(tmp_path):
    path = tmp_path / "mine.toml"
    row = 'hidden = 8\nvocab = 8\nblocks = [{ count = 1, mlp = { width = 8 } }]\naliases = ["deepseek-ai/DeepSeek-R1"]'
    path.write_text(f'[models."me/x"]\n{row}')
    with pytest.raises(InputError, match=r"mine\.toml: models\.me/x: .*deepseek-ai/DeepSeek-V3"):
        load_catalogue([path])


@pytest.mark.parametrize("text", ["2026-1", "26-01-01", "2026/01/01", "", "2026-00", "2026-01-32", "2026-01-01T00:00"])
def test_only_iso_dates_are_dates(text):
    with pytest.raises(InputError, match="expected an ISO date"):
        day_of(text, where="as_of")
