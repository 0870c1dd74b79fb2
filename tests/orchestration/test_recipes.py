"""Recipes tell the truth: what an asset makes, reads, imports and is set by is what they say.

Bodies of assets are read as source, so that a table read or a module imported without the recipe's
knowledge fails here, and not by a stale row one night.
"""

import ast
import importlib
import inspect
from collections.abc import Iterator
from functools import cache
from types import ModuleType

import pytest

from assets.activations.tables import ACTIVATION_SHARDS
from assets.factorization.tables import DICTIONARY, FACTORIZATIONS
from assets.labels.tables import LLM_CALLS
from assets.recipe import Recipe
from assets.shared.code_hash import imported_closure, imports_in_function
from assets.shared.schema import Table
from orchestration.definitions import ASSETS
from orchestration.recipes import RECIPES

# Written beside the assets, and read by none of them.
SIDE_TABLES = {LLM_CALLS}
# What a StageRun reads when these are called on it. The shards that fitted_row reads only say
# whether the coefficients are of the tokens that are there, which the fit's recipe sees to.
READ_BY = {
    "fitted": {FACTORIZATIONS, DICTIONARY},
    "fitted_row": {FACTORIZATIONS},
    "activations": {ACTIVATION_SHARDS},
}
MAKES_NO_NUMBERS = ("tables", "plots", "progress", "prompts")


def definitions_of(recipe: Recipe) -> ModuleType:
    return importlib.import_module(f"assets.{recipe.stage}.definitions")


@cache
def functions_of(module: ModuleType) -> dict[str, ast.FunctionDef]:
    tree = ast.parse(inspect.getsource(module))
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


def names_in(node: ast.AST) -> set[str]:
    return {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}


def bodies(recipe: Recipe) -> dict[str, ast.FunctionDef]:
    """The asset's function and those of its module that it goes through, by name."""
    module = definitions_of(recipe)
    functions = functions_of(module)
    (variable,) = [name for name, value in vars(module).items() if value is recipe]
    waiting = [
        name
        for name, node in functions.items()
        if any(variable in names_in(one) for one in node.body)
    ]
    found: dict[str, ast.FunctionDef] = {}
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = functions[name]
            waiting += names_in(functions[name]) & functions.keys()
    return found


def tables_used(recipe: Recipe) -> set[Table]:
    """Tables that the bodies name, or that a StageRun reads for them."""
    module = definitions_of(recipe)
    used: set[Table] = set()
    for node in bodies(recipe).values():
        for name in names_in(node):
            value = getattr(module, name, None)
            used |= {one for one in _flat(value) if isinstance(one, Table)}
        used |= {
            table
            for one in ast.walk(node)
            if isinstance(one, ast.Attribute)
            for table in READ_BY.get(one.attr, ())
        }
    return used


def _flat(value: object) -> tuple[object, ...]:
    return value if isinstance(value, tuple) else (value,)


def reads_of_columns(recipe: Recipe) -> Iterator[tuple[Table, set[str]]]:
    """The tables that the bodies read, with the columns where they name some."""
    module = definitions_of(recipe)
    for node in bodies(recipe).values():
        for call in ast.walk(node):
            if not (
                isinstance(call, ast.Call)
                and isinstance(call.func, ast.Attribute)
                and call.func.attr == "read"
                and isinstance(call.args[0], ast.Name)
            ):
                continue
            table = getattr(module, call.args[0].id, None)
            named = {word.arg: word.value for word in call.keywords}.get("columns")
            if isinstance(table, Table) and isinstance(named, ast.Tuple):
                yield table, set(ast.literal_eval(named))


def test_every_asset_has_a_recipe_with_exactly_its_tables() -> None:
    assert {asset.node_def.name for asset in ASSETS} == {recipe.name for recipe in RECIPES}
    by_name = {recipe.name: recipe for recipe in RECIPES}
    for asset in ASSETS:
        recipe = by_name[asset.node_def.name]
        assert {key.to_user_string() for key in asset.keys} == {t.name for t in recipe.tables}
        read = {one.table.name for one in recipe.inputs}
        deps = {key.to_user_string() for keys in asset.asset_deps.values() for key in keys}
        assert deps == read, recipe.name


def test_no_table_is_made_twice_and_every_recipe_comes_after_what_it_reads() -> None:
    made: list[str] = []
    for recipe in RECIPES:
        assert {one.table.name for one in recipe.inputs} <= set(made), recipe.name
        made += [table.name for table in recipe.tables]
    assert len(made) == len(set(made))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_tables_that_an_asset_touches_are_in_its_recipe(recipe: Recipe) -> None:
    told = {one.table for one in recipe.inputs} | set(recipe.tables) | SIDE_TABLES
    unknown = {table.name for table in tables_used(recipe) - told}
    assert not unknown, f"{recipe.name} touches {unknown}, of which its recipe knows nothing"
    # What a recipe reads without using it would make it run for nothing.
    unused = {one.table.name for one in recipe.inputs} - {t.name for t in tables_used(recipe)}
    assert not unused, f"{recipe.name} says it reads {unused}, which it does not"


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_columns_that_an_asset_reads_by_name_are_among_those_that_matter(recipe: Recipe) -> None:
    for table, columns in reads_of_columns(recipe):
        if table in recipe.tables:
            continue
        for one in recipe.inputs:
            if one.table == table and one.columns is not None:
                # The partition's own columns are the same for all rows.
                assert columns - set(table.partition_by) <= set(one.columns), (
                    f"{recipe.name} reads {columns - set(one.columns)} of {table.name}"
                )
    for one in recipe.inputs:
        assert set(one.columns or ()) <= set(one.table.column_names)


@pytest.mark.parametrize(
    "recipe", [r for r in RECIPES if r.modules is not None], ids=lambda recipe: recipe.name
)
def test_modules_that_an_asset_imports_are_in_its_code_version(recipe: Recipe) -> None:
    assert recipe.modules is not None
    hashed = imported_closure(recipe.modules)
    module = f"assets.{recipe.stage}.definitions"
    for name in bodies(recipe):
        for imported in imports_in_function(module, name):
            if not imported.endswith(MAKES_NO_NUMBERS):
                assert imported in hashed, f"{recipe.name}: {imported} is not in its modules"
