"""read_experiment: what a file may say, and what it is told when it says something else."""

import re
import subprocess
import sys

import pytest

from synicix_core.errors import ParamsError
from synicix_core.experiment import read_experiment

DATASET = '[[dataset]]\nfiles = "a.h5"\nprovider = "D"\n'
MODEL = '[[model]]\nprovider = "M"\n'
TRAINING = '[[training]]\ncriterion = "C"\n'
ALL = DATASET + MODEL + TRAINING


def write(tmp_path, text):
    path = tmp_path / "sweep.toml"
    path.write_text(text, encoding="utf-8")
    return path


def mistakes(tmp_path, text):
    with pytest.raises(ParamsError) as caught:
        read_experiment(write(tmp_path, text))
    return dict(caught.value.mistakes)


def test_values_come_in_one_form(tmp_path):
    text = TRAINING + 'name = "t"\noptimizer = "Adam"\nmetrics = ["r2", { provider = "loss", params = { a = 1 } }]\n'
    (table,) = read_experiment(write(tmp_path, text)).tables
    assert table.values["optimizer"] == {"provider": "Adam"}
    assert table.values["metrics"] == [{"provider": "r2", "params": {}}, {"provider": "loss", "params": {"a": 1}}]
    assert (table.label, table.origin, table.where) == (
        "t",
        "sweep.toml [[training]] #1 't'",
        "sweep.toml, [[training]] 't'",
    )


def test_a_table_without_a_name_goes_by_its_number(tmp_path):
    tables = read_experiment(write(tmp_path, MODEL + MODEL)).tables
    assert [table.label for table in tables] == ["#1", "#2"]
    assert tables[1].origin == "sweep.toml [[model]] #2"


@pytest.mark.parametrize("key", ['"params.a.b"', "params.a.b"])
def test_dotted_keys_of_sweeps_may_be_quoted_or_not(tmp_path, key):
    text = (
        f"{MODEL}[model.grid]\n{key} = [1, 2]\n" + MODEL + f"[model.random]\nsamples = 1\n{key} = {{ int = [1, 2] }}\n"
    )
    first, second = read_experiment(write(tmp_path, text)).tables
    assert first.grid == (("params.a.b", (1, 2)),)
    assert second.random.axes[0][0] == "params.a.b"


def test_a_byte_order_mark_is_no_mistake(tmp_path):
    path = tmp_path / "sweep.toml"
    path.write_bytes(b"\xef\xbb\xbf" + ALL.encode())
    assert len(read_experiment(path).tables) == 3


def test_all_mistakes_come_at_once(tmp_path):
    text = MODEL.replace("provider", "provder") + TRAINING + "batch_size = true\nmetrics = 3\n"
    assert list(mistakes(tmp_path, text)) == [
        "sweep.toml, [[model]] #1, provder",
        "sweep.toml, [[model]] #1, provider",
        "sweep.toml, [[training]] #1, batch_size",
        "sweep.toml, [[training]] #1, metrics",
    ]


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("[[modle]]\n", "modle", "no table of that name; did you mean 'model'"),
        ("[[zebra]]\n", "zebra", r"there are \[\[dataset\]\], \[\[model\]\], \[\[training\]\], \[\[task\]\]"),
        ("[grid]\n", "grid", r"write \[dataset.grid\], \[model.grid\] or \[training.grid\]"),
        ('[model]\nprovider = "M"\n', "model", r"write \[\[model\]\] with two brackets"),
        ("model = [1]\n", "model", r"write \[\[model\]\]"),
        (MODEL + "parms = {}\n", "[[model]] #1, parms", "did you mean 'params'"),
        (MODEL + "hidden_size = 3\n", "[[model]] #1, hidden_size", 'write "params.hidden_size"'),
        (TRAINING + "lr = 3\n", "[[training]] #1, lr", '"optimizer.params.lr"'),
        (MODEL + "name = 3\n", "[[model]] #1, name", r"expected a string, got 3 \(integer\)"),
        (MODEL + 'name = "*"\n', "[[model]] '*', name", "give another name"),
        (MODEL + 'name = " "\n', "[[model]] ' ', name", "empty"),
        (MODEL + "params = 3\n", "[[model]] #1, params", "expected a table"),
        (MODEL + "params = { a = [1, nan] }\n", "[[model]] #1, params.a[1]", "nan is not a JSON number"),
        (MODEL + "params = { a = 2020-01-01 }\n", "[[model]] #1, params.a", "a value of type date cannot be stored"),
        ('[[model]]\nname = "m"\n', "[[model]] 'm', provider", "needs this key"),
        ('[[dataset]]\nprovider = "D"\n', "[[dataset]] #1, files", "needs this key"),
        ('[[dataset]]\nprovider = "D"\nfiles = []\n', "[[dataset]] #1, files", "empty"),
        ('[[dataset]]\nprovider = "D"\nfiles = [3]\n', "[[dataset]] #1, files", "expected a string"),
        ("[[training]]\n", "[[training]] #1, criterion", "needs this key"),
        (TRAINING + "seed = 1.0\n", "[[training]] #1, seed", r"expected an integer, got 1.0 \(float\)"),
        (TRAINING + "metrics = []\n", "[[training]] #1, metrics", "empty"),
        (TRAINING + "metrics = [{}]\n", "[[training]] #1, metrics[0]", "no provider"),
        (TRAINING + "optimizer = { lr = 1 }\n", "[[training]] #1, optimizer.lr", "params = { lr = … }"),
        ("[[training]]\ncriterion = { params = {} }\n", "[[training]] #1, criterion.provider", "which criterion"),
        (DATASET + "test_sampler = {}\n", "[[dataset]] #1, test_sampler.provider", "which test sampler"),
        (MODEL + "grid = 3\n", "[[model]] #1, grid", "expected a table"),
        (MODEL + "[model.grid]\n", "[[model]] #1, grid", "the grid is empty"),
        (MODEL + '[model.grid]\n"params.a" = []\n', "[[model]] #1, grid.params.a", "the list of values is empty"),
        (MODEL + '[model.grid]\n"params.a" = 3\n', "[[model]] #1, grid.params.a", "expected a list of values"),
        (MODEL + "[model.grid]\nhidden = [3]\n", "[[model]] #1, grid.hidden", 'write "params.hidden"'),
        (MODEL + '[model.grid]\n"params." = [3]\n', "[[model]] #1, grid.params.", "empty part"),
        (MODEL + '[model.grid]\nname = ["a"]\n', "[[model]] #1, grid.name", "cannot be swept"),
        (
            DATASET + '[dataset.grid]\nfiles = ["a"]\n',
            "[[dataset]] #1, grid.files",
            "list several files in files itself",
        ),
        (
            TRAINING + "[training.grid]\nbatchsize = [3]\n",
            "[[training]] #1, grid.batchsize",
            "did you mean 'batch_size'",
        ),
        (TRAINING + "[training.grid]\nlr = [3]\n", "[[training]] #1, grid.lr", '"optimizer.params.lr"'),
        (
            TRAINING + '[training.grid]\n"optimizer.lr" = [3]\n',
            "[[training]] #1, grid.optimizer.lr",
            'write "optimizer.params.lr"',
        ),
        (TRAINING + '[training.grid]\n"seed.a" = [3]\n', "[[training]] #1, grid.seed.a", "sweep 'seed' as a whole"),
        (TRAINING + '[training.grid]\nseed = [1, "2"]\n', "[[training]] #1, grid.seed[1]", "expected an integer"),
        (
            MODEL + '[model.grid]\n"params.a" = [1]\nparams.a = [2]\n',
            "[[model]] #1, grid.params.a",
            "given twice, once quoted and once not",
        ),
        (
            MODEL + 'params = { a = 1 }\n[model.grid]\n"params.a.b" = [1]\n',
            "[[model]] #1, params.a.b",
            'params.a is 1, not a table, so there is no "params.a.b"',
        ),
        (
            MODEL + '[model.grid]\n"params.a" = [{}, 3]\n"params.a.b" = [1]\n',
            "[[model]] #1, params.a.b",
            "params.a is 3",
        ),
        (
            MODEL + '[model.grid]\n"params.a" = [1]\n[model.random]\nsamples = 1\n"params.a" = { int = [1, 2] }\n',
            "[[model]] #1, params.a",
            "in grid and in random",
        ),
        (MODEL + "random = 3\n", "[[model]] #1, random", "expected a table"),
        (MODEL + "[model.random]\nsamples = 2\n", "[[model]] #1, random", "no key is drawn"),
        (
            TRAINING + "[training.random]\nsamples = 1\nseed = { int = [0, 9] }\n",
            "[[training]] #1, random.seed",
            "grid",
        ),
    ],
)
def test_a_mistake_names_file_table_and_key(tmp_path, text, place, message):
    found = mistakes(tmp_path, text)
    assert re.search(message, found[f"sweep.toml, {place}"])


@pytest.mark.parametrize(
    ("line", "key", "message"),
    [
        ("samples = 0", "samples", "1 or more, got 0"),
        ("samples = true", "samples", "1 or more"),
        ("", "samples", "how many samples"),
        ('samples = 1\n"params.b" = 3', "params.b", "expected one distribution"),
        ('samples = 1\n"params.b" = {}', "params.b", "expected one distribution"),
        ('samples = 1\n"params.b" = { int = [1, 2], choice = [1] }', "params.b", "expected one distribution"),
        ('samples = 1\n"params.b" = { unifrm = [1, 2] }', "params.b", "did you mean 'uniform'"),
        ('samples = 1\n"params.b" = { uniform = [1] }', "params.b", "two bounds"),
        ('samples = 1\n"params.b" = { uniform = [0, inf] }', "params.b", "two finite numbers"),
        ('samples = 1\n"params.b" = { uniform = ["0", 1] }', "params.b", "two finite numbers"),
        ('samples = 1\n"params.b" = { uniform = [2, 1] }', "params.b", "lower bound first"),
        ('samples = 1\n"params.b" = { int = [2, 1] }', "params.b", "lower bound first"),
        ('samples = 1\n"params.b" = { int = [1, 2.0] }', "params.b", "two integers"),
        ('samples = 1\n"params.b" = { loguniform = [0, 1] }', "params.b", "above zero"),
        ('samples = 1\n"params.b" = { choice = [] }', "params.b", "a list of values"),
        ("samples = 1\nprovider = { uniform = [0, 1] }", "provider", "expected a string"),
        (
            'samples = 1\n"params.b" = { int = [1, 2] }\nparams.b = { int = [1, 3] }',
            "params.b",
            "given twice, once quoted and once not",
        ),
        ("samples = 1\nhidden = { uniform = [0, 1] }", "hidden", 'write "params.hidden"'),
    ],
)
def test_mistakes_in_random_tables(tmp_path, line, key, message):
    found = mistakes(tmp_path, f'{MODEL}[model.random]\n{line}\n"params.a" = {{ int = [1, 2] }}\n')
    assert message in found[f"sweep.toml, [[model]] #1, random.{key}"]


@pytest.mark.parametrize(
    ("rule", "place", "message"),
    [
        ('model = "lage"', "[[task]] #1, model", "no [[model]] is named 'lage'; did you mean 'large'?"),
        ('dataset = "x"', "[[task]] #1, dataset", "no [[dataset]] has a name"),
        ('model = ["large", 3]', "[[task]] #1, model", "expected a label, got 3"),
        ("model = []", "[[task]] #1, model", "the list of labels is empty"),
        ('modle = "large"', "[[task]] #1, modle", "did you mean 'model'?"),
    ],
)
def test_mistakes_in_tasks(tmp_path, rule, place, message):
    text = f'{DATASET}{MODEL}name = "large"\n{TRAINING}[[task]]\n{rule}\n'
    assert message in mistakes(tmp_path, text)[f"sweep.toml, {place}"]


def test_a_task_needs_one_table_of_each_kind(tmp_path):
    assert "a task needs a training" in mistakes(tmp_path, DATASET + MODEL + "[[task]]\n")["sweep.toml, [[task]] #1"]


def test_a_label_belongs_to_one_table_of_its_kind(tmp_path):
    text = (MODEL + 'name = "a"\n') * 2 + TRAINING + 'name = "a"\n'
    assert mistakes(tmp_path, text) == {
        "sweep.toml, [[model]] #2, name": "the label 'a' is that of [[model]] #1 already"
    }


def test_invalid_toml_is_told_with_line_and_column(tmp_path):
    ((place, message),) = mistakes(tmp_path, '[[model]]\nprovider = "M\n').items()
    assert place.endswith("sweep.toml")
    assert "line 2, column 14" in message


def test_an_integer_of_thousands_of_digits_is_no_crash(tmp_path):
    assert mistakes(tmp_path, MODEL + "params = { a = " + "1" * 5000 + " }\n")


@pytest.mark.parametrize("text", ["", "\n# only a comment\n"])
def test_an_empty_file_is_told_so(tmp_path, text):
    with pytest.raises(ParamsError, match="the experiment file is empty"):
        read_experiment(write(tmp_path, text))


def test_a_file_in_another_encoding_is_told_with_line_and_byte(tmp_path):
    path = tmp_path / "sweep.toml"
    path.write_bytes(b'# first\nname = "\xe9"\n')
    with pytest.raises(ParamsError, match="line 2, byte 9 is not UTF-8"):
        read_experiment(path)


def test_a_missing_file_says_which_there_are(tmp_path):
    write(tmp_path, ALL)
    (tmp_path / "synicix.toml").touch()
    with pytest.raises(ParamsError, match=r"(?s)there is no such file.*in that directory: sweep\.toml\."):
        read_experiment(tmp_path / "swep.toml")


def test_a_directory_is_told_so(tmp_path):
    with pytest.raises(ParamsError, match="it is a directory"):
        read_experiment(tmp_path)


def test_a_string_is_never_taken_for_its_letters(tmp_path):
    text = ALL.replace('"D"', '"D"\nname = "ab"') + '[[task]]\ndataset = "ab"\n'
    (rule,) = read_experiment(write(tmp_path, text)).rules
    assert (rule.dataset, rule.model) == (("ab",), None)


def test_reading_loads_nothing_heavy():
    code = "import sys, synicix_core.experiment; print({'torch', 'datajoint', 'numpy', 'pandas'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
