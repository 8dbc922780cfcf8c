"""The error tree. Every message says what happened, to which object, and what to do next.

This module is a leaf: it imports nothing, so that every room may raise these errors.
"""


class TrtdetError(Exception):
    """A foreseeable failure: the command line prints its message and exits with `exit_code`."""

    exit_code = 2


class InputError(TrtdetError):
    """A table, an option or a path from the user cannot be used."""


class CheckpointError(TrtdetError):
    """A weights file is not what the detector needs."""


class DownloadError(TrtdetError):
    """Released weights cannot be fetched."""


class ImageError(TrtdetError):
    """One image cannot be scored. It costs its row, never the run."""


class BundleError(TrtdetError):
    """A bundle is missing, incomplete, or of another schema version."""


class BackendError(TrtdetError):
    """A backend cannot be loaded on this machine, or failed while it ran."""

    exit_code = 4


class PlanMissError(BackendError):
    """No compiled plan is for this graph, this TensorRT, this GPU and this batch."""


class WeightsError(BackendError):
    """A backend has no 8-bit kernel for some layers, and would prepare their weights wrongly."""

    def __init__(self, message: str, layers: tuple[str, ...]):
        super().__init__(message)
        self.layers = layers  # the backend's names of what makes their weights


class DriftError(TrtdetError):
    """An engine does not give the scores that its bundle records."""

    exit_code = 5


class PrecisionError(TrtdetError):
    """An engine in fewer bits lies further from the network than its limits allow."""

    exit_code = 6


class VerificationError(TrtdetError):
    """An engine does not hold what was promised of it."""

    exit_code = 6
