"""What the kit provides."""

from synicix_core import DatasetProvider, ModelProvider, SamplerProvider, hookimpl


@hookimpl
def synicix_datasets():
    for name in ("Doubles", "HeldDoubles"):
        yield DatasetProvider(name, target=f"parallel_kit.parts:{name}", summary="Noisy targets in double precision")


@hookimpl
def synicix_models():
    yield ModelProvider("Net", target="parallel_kit.parts:Net", summary="A small network in double precision")


@hookimpl
def synicix_samplers():
    for name in ("FromTheProcess", "OfTheRank", "Batches"):
        yield SamplerProvider(
            name,
            target=f"parallel_kit.parts:{name}",
            summary="An order of its own",
            yields="batch" if name == "Batches" else "index",
        )
