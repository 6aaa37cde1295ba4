"""The plugin as the registry sees it."""

from __future__ import annotations

import subprocess
import sys

from synicix_core.parameters import check_params, describe
from synicix_core.registry import Registry


def test_the_installed_plugin_provides_simplemlp():
    registered = Registry.discover().resolve("model", "SimpleMLP")
    assert registered.qualified == "synicix-mlp/SimpleMLP"
    assert registered.load().__name__ == "SimpleMLP"


def test_old_parameters_are_accepted_and_mistakes_are_found_before_training():
    registered = Registry.discover().resolve("model", "SimpleMLP")
    old = {"num_hidden_layers": 1, "hidden_size": 1000, "l1_loss_lamda": 0.0, "l2_loss_lamda": 0}
    assert check_params(registered, old).mistakes == ()
    wrong = check_params(registered, {"l1_loss_lambda": 0.1, "hidden_size": 1.5, "activation": "rleu"})
    assert [path for path, _ in wrong.mistakes] == ["l1_loss_lambda", "hidden_size", "activation"]
    assert {"nonnegative_output", "dropout"} <= {parameter.name for parameter in describe(registered).parameters}


def test_the_hook_module_loads_no_torch():
    code = "import sys, synicix_mlp.hooks as h; list(h.synicix_models()); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
