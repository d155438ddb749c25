"""How a model is trained: settings, or a function of the user's. References are trained as the original was."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from oblivio.jobs.section import Section


class Recipe(Section):
    """Settings of a training; those left out are the shipped ones of the network.

    Attributes:
        train: ``package.module:function`` in place of all settings, called with (source, seed, folder); it returns
            the trained module. ``source.batches(n)`` gives its rows in order, and a folder that is there on every
            attempt may hold what the function needs to go on after a kill.
        optimiser, lr, wd: as in torch. ``momentum`` is sgd's.
        schedule: of the rate, over the whole training.
        epochs, batch: passes over the rows, and rows a step.
        augmentation: of images: ``crop_flip`` shifts by up to an eighth of a side and mirrors half of them.
    """

    short: ClassVar[str | None] = "train"

    train: Annotated[str, Field(pattern=r"^[\w.]+:\w+$")] | None = None
    optimiser: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: Annotated[float, Field(gt=0)] = 0.05
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    wd: Annotated[float, Field(ge=0)] = 0.0
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    epochs: Annotated[float, Field(gt=0)] = 20
    batch: Annotated[int, Field(gt=0)] = 64
    augmentation: Literal["none", "crop_flip"] = "none"

    @model_validator(mode="after")
    def _one_or_the_other(self) -> Self:
        settings = self.model_fields_set - {"train"}
        if self.train is not None and settings:
            raise ValueError(f"the function is the whole recipe; leave out {', '.join(sorted(settings))}")
        return self

    @model_serializer(mode="wrap")
    def _one_of_them(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = dump(self)
        train = fields.pop("train", None)
        return fields if train is None else {"train": train}

    def over(self, shipped: Recipe) -> Recipe:
        """``shipped`` with what was given here in its place; a function stands alone."""
        return self if self.train else shipped.but(**{name: getattr(self, name) for name in self.model_fields_set})


SHIPPED = {
    "mlp": Recipe(optimiser="adamw", lr=1e-3, wd=0.0, epochs=20),
    "small-cnn": Recipe(lr=0.05, wd=5e-4, epochs=20),
    "resnet18": Recipe(lr=0.1, wd=5e-4, epochs=20, batch=128, augmentation="crop_flip"),
    "vit-tiny": Recipe(optimiser="adamw", lr=1e-3, wd=0.05, epochs=20),
}


def shipped(network: str) -> Recipe:
    """The recipe of a built-in network; the plain defaults for a user's own."""
    return SHIPPED.get(network, Recipe())
