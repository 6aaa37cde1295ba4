"""Plugins are found, isolated from each other, and named without ambiguity."""

from __future__ import annotations

import types

import pytest

from synicix_core import CriterionProvider, MetricProvider, ModelProvider, hookimpl, hookspec
from synicix_core.errors import (
    PluginHookError,
    PluginImportError,
    PluginValidationError,
    ProviderConflict,
    ProviderNotFound,
)
from synicix_core.registry import get_registry
from tests.factories import plugin, registry

NET = ModelProvider("Net", target="torch.nn:Linear")


def only_problem(found):
    assert len(found.problems) == 1, [str(problem) for problem in found.problems]
    return found.problems[0]


@pytest.mark.parametrize("error", [ImportError("no jax"), RuntimeError("boom"), SystemExit(3)])
def test_a_plugin_that_cannot_be_imported_leaves_the_others_alone(error):
    found = registry(plugin("lab-bad", raises=error), plugin("lab-good", NET))
    problem = only_problem(found)
    assert isinstance(problem.error, PluginImportError)
    assert (problem.distribution, problem.version) == ("lab-bad", "1.0")
    assert type(error).__name__ in str(problem)
    assert found.resolve("model", "Net").distribution == "lab-good"


def test_a_key_press_during_import_is_not_swallowed():
    with pytest.raises(KeyboardInterrupt):
        registry(plugin("lab-bad", raises=KeyboardInterrupt()))


def test_a_misspelt_hook_is_a_problem_with_a_suggestion_and_the_rest_works():
    found = registry(plugin("lab-kit", NET, synicix_modles=hookimpl(lambda: ())))
    assert "Did you mean synicix_models?" in str(only_problem(found))
    assert found.resolve("model", "Net")


def test_a_hook_without_its_decorator_is_a_problem():
    def synicix_models():
        return ()

    synicix_models.__module__ = "lab_kit.hooks"
    assert "@hookimpl" in str(only_problem(registry(plugin("lab-kit", synicix_models=synicix_models))))


def test_a_provider_hook_that_raises_leaves_the_others_alone():
    def broken():
        yield NET
        raise ValueError("half way")

    found = registry(plugin("lab-a", synicix_models=hookimpl(broken)), plugin("lab-b", NET))
    problem = only_problem(found)
    assert isinstance(problem.error, PluginHookError)
    assert "half way" in str(problem)
    assert found.resolve("model", "Net").qualified == "lab-b/Net"


def test_a_hook_that_yields_another_kind_is_a_problem():
    metric = MetricProvider("m", target="a:m")
    found = registry(plugin("lab-kit", synicix_models=hookimpl(lambda: [metric, "Net", NET])))
    assert len(found.problems) == 2
    assert all(isinstance(problem.error, PluginValidationError) for problem in found.problems)
    assert [entry.name for entry in found.providers("model")] == ["Net"]


def test_a_provider_declared_twice_is_a_problem_and_the_first_one_counts():
    found = registry(plugin("lab-kit", NET, ModelProvider("Net", target="torch.nn:Bilinear")))
    assert "declared twice" in str(only_problem(found))
    assert found.resolve("model", "Net").target == "torch.nn:Linear"


def test_a_short_name_of_two_distributions_is_ambiguous_and_both_stay_usable():
    found = registry(plugin("lab-a", NET), plugin("lab-b", NET, version="2.1"))
    with pytest.raises(ProviderConflict) as caught:
        found.resolve("model", "Net")
    assert "lab-a/Net (lab-a 1.0), lab-b/Net (lab-b 2.1)" in str(caught.value)
    assert found.resolve("model", "lab-b/Net").distribution == "lab-b"
    assert found.resolve("model", "Lab_B/Net").distribution == "lab-b"


def test_rows_hold_the_version_from_2_on():
    assert registry(plugin("lab-a", NET)).resolve("model", "Net").qualified == "lab-a/Net"
    second = ModelProvider("Net", target="torch.nn:Linear", version=2)
    assert registry(plugin("lab-a", second)).resolve("model", "Net").qualified == "lab-a/Net@2"


def test_an_old_row_keeps_its_meaning_when_the_version_is_raised():
    second = ModelProvider("Net", target="torch.nn:Linear", version=2)
    found = registry(plugin("lab-a", second))
    with pytest.raises(ProviderNotFound) as caught:
        found.resolve_stored("model", "lab-a/Net")
    assert "means version 1" in str(caught.value)
    assert "provides version 2" in str(caught.value)
    assert found.resolve_stored("model", "lab-a/Net@2").provider is second


def test_a_plugin_may_provide_two_versions_at_once():
    second = ModelProvider("Net", target="torch.nn:Bilinear", version=2)
    found = registry(plugin("lab-a", NET, second))
    assert found.problems == ()
    assert found.resolve("model", "Net").provider is second
    assert found.resolve("model", "lab-a/Net@1").provider is NET
    assert found.resolve_stored("model", "lab-a/Net").provider is NET


def test_an_alias_is_stored_under_the_present_name():
    renamed = ModelProvider("Network", target="torch.nn:Linear", aliases=("Net",))
    found = registry(plugin("lab-a", renamed))
    assert found.resolve("model", "Net").qualified == "lab-a/Network"
    assert found.resolve_stored("model", "lab-a/Net").provider is renamed


def test_an_unknown_name_is_answered_with_what_looks_alike():
    with pytest.raises(ProviderNotFound, match=r"Did you mean Net \(lab-a 1.0\)\?"):
        registry(plugin("lab-a", NET)).resolve("model", "net")


def test_a_name_of_another_kind_is_said():
    found = registry(plugin("lab-a", CriterionProvider("Gamma", target="a:b")))
    with pytest.raises(ProviderNotFound, match="There is a criterion of that name"):
        found.resolve("metric", "Gamma")


def test_a_module_path_is_answered_with_how_to_make_a_plugin():
    with pytest.raises(ProviderNotFound) as caught:
        registry(plugin("lab-a", NET)).resolve("model", "my_models.deep.Resnet")
    assert "make a plugin of it" in str(caught.value)
    assert 'ModelProvider("Resnet", target="my_models.deep:Resnet")' in str(caught.value)


def test_a_distribution_that_is_not_installed_is_said():
    with pytest.raises(ProviderNotFound, match=r"the distribution lab-z is not installed\. .*Run: pip install lab-z$"):
        registry(plugin("lab-a", NET)).resolve_stored("model", "lab-z/Net")


def test_a_broken_plugin_that_may_own_the_name_is_named():
    found = registry(plugin("lab-bad", raises=ImportError("no jax")))
    with pytest.raises(ProviderNotFound, match="no jax"):
        found.resolve_stored("model", "lab-bad/Net")


def test_disabled_plugins_are_not_even_imported():
    bad = plugin("lab-bad", raises=RuntimeError("imported"))
    assert registry(bad, plugin("lab-a", NET), disabled="Lab_Bad").problems == ()
    found = registry(bad, plugin("lab-a", NET), plugin("synicix-core", NET), disabled="*")
    assert [entry.distribution for entry in found.plugins] == ["synicix-core"]
    with pytest.raises(ProviderNotFound, match="switched off by SYNICIX_DISABLE_PLUGINS"):
        found.resolve_stored("model", "lab-a/Net")


def test_an_entry_point_found_twice_counts_once():
    found = registry(plugin("lab-a", NET), plugin("lab-a", NET))
    assert found.problems == ()
    assert len(found.providers("model")) == 1


def test_a_missing_target_is_found_when_it_is_loaded():
    found = registry(
        plugin("lab-a", ModelProvider("Gone", target="torch.nn:Gone"), ModelProvider("Lost", target="no_such:x"))
    )
    assert found.problems == ()
    for name in ("Gone", "Lost"):
        with pytest.raises(PluginImportError, match=name):
            found.resolve("model", name).load()


def test_two_plugins_with_one_command_are_a_problem():
    import click

    def commands():
        yield click.Command("hello")

    found = registry(
        plugin("lab-a", synicix_commands=hookimpl(commands)), plugin("lab-b", synicix_commands=hookimpl(commands))
    )
    assert [command.name for _, command in found.commands()] == ["hello"]
    assert "'hello' is provided by lab-a already" in str(only_problem(found))


def specs_of_a_plugin(*names):
    module = types.ModuleType("lab_kit.hookspecs")
    for name in names:
        setattr(module, name, hookspec(lambda: ()))
    return module


def test_a_plugin_may_have_hooks_of_its_own_that_others_implement():
    owner = plugin("lab-kit", synicix_hookspecs=hookimpl(lambda: [specs_of_a_plugin("lab_stimuli")]))
    # Sorted before its owner, so the order of loading is not the order of need.
    user = plugin("lab-art", lab_stimuli=hookimpl(lambda: ["gratings"]))
    broken = plugin("lab-bad", lab_stimuli=hookimpl(lambda: 1 / 0))
    found = registry(owner, user, broken)
    assert [(entry.distribution, item) for entry, item in found.collect("lab_stimuli")] == [("lab-art", "gratings")]
    assert found.collect("lab_stimuli"), "asking again"
    problem = only_problem(found)
    assert isinstance(problem.error, PluginHookError)
    assert problem.distribution == "lab-bad"


def test_a_plugins_own_hook_is_unknown_without_it_unless_its_user_says_that_it_is_optional():
    found = registry(plugin("lab-art", lab_stimuli=hookimpl(lambda: ["gratings"])))
    assert "there is no hook 'lab_stimuli'" in str(only_problem(found))
    optional = hookimpl(optionalhook=True)(lambda: ["gratings"])
    found = registry(plugin("lab-art", lab_stimuli=optional))
    assert not found.problems
    with pytest.raises(ValueError, match="no installed plugin declares a hook named 'lab_stimuli'"):
        found.collect("lab_stimuli")


@pytest.mark.parametrize("taken", ["synicix_models", "lab_stimuli"])
def test_a_hook_is_declared_once(taken):
    first = plugin("lab-a", synicix_hookspecs=hookimpl(lambda: [specs_of_a_plugin("lab_stimuli")]))
    second = plugin("lab-b", synicix_hookspecs=hookimpl(lambda: [specs_of_a_plugin(taken)]))
    found = registry(first, second, plugin("lab-c", NET, lab_stimuli=hookimpl(lambda: ["gratings"])))
    assert f"declares {taken}, which exists already" in str(only_problem(found))
    assert found.resolve("model", "Net")
    assert [item for _, item in found.collect("lab_stimuli")] == ["gratings"]


def test_a_plugin_whose_hookspecs_cannot_be_had_is_a_problem_and_keeps_its_providers():
    found = registry(plugin("lab-kit", NET, synicix_hookspecs=hookimpl(lambda: 1 / 0)))
    assert "synicix_hookspecs failed" in str(only_problem(found))
    assert found.resolve("model", "Net")


def test_observers_are_listed_with_their_plugin():
    seen = []

    def failed(event):
        seen.append(event)

    found = registry(plugin("lab-a", synicix_task_failed=hookimpl(failed)))
    (observer,) = found.observers("synicix_task_failed")
    observer.function(event="e")
    assert (observer.plugin.distribution, seen) == ("lab-a", ["e"])


def test_the_installed_plugins_have_no_problems():
    assert [str(problem) for problem in get_registry().problems] == []
