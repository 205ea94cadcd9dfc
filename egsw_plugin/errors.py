"""The plugin's own errors: each says which key or tensor is wrong, its value, and what to do."""

from __future__ import annotations


class EGSWPluginError(Exception):
    """Base of every error that this plugin raises."""


class OptionError(EGSWPluginError, ValueError):
    """A configuration value, or a combination of them, that cannot work."""

    def __init__(self, key: str, value: object, fix: str):
        self.key, self.value, self.fix = key, value, fix
        super().__init__(f"{key}={value!r}: {fix}")

    def __reduce__(self) -> tuple[type[OptionError], tuple[str, object, str]]:
        return type(self), (self.key, self.value, self.fix)  # Ray pickles what a task raises


class MemberError(EGSWPluginError, ImportError):
    """A member of the family that cannot be loaded, or is not what it must be; says whose it is."""


class TensorError(EGSWPluginError, ValueError):
    """A tensor that is missing, of another shape than the response mask, or outside its range."""


class UndeclaredError(TensorError):
    """A member reads what its requirements do not name."""


class VaryingAdvantagesError(TensorError):
    """Advantages that vary within a response, where one for the whole response is needed."""


class BridgeError(EGSWPluginError, RuntimeError):
    """The running verl does not give the plugin what a method needs."""


class DataError(EGSWPluginError, ValueError):
    """A data set that cannot be loaded or is not what it says it is, or a record without a usable answer."""


class ModelError(EGSWPluginError, ValueError):
    """A model that cannot be had, is not what it should be, or has no place to be written to."""


class GraderError(EGSWPluginError, RuntimeError):
    """The processes that grade answers cannot be started."""
