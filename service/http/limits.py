"""Limits that hold for every client and are nobody's choice; a test passes smaller ones."""

from dataclasses import dataclass, field

from model.archive import ArchiveLimits

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request or connection may take. Sizes are in bytes, times in seconds."""

    head_bytes: int = 32 << 10
    """Request line and headers."""
    head_deadline_s: float = 10
    write_deadline_s: float = 30
    """How long a client may leave an answer unread."""
    pipelined_requests: int = 64
    """Requests of one connection that may wait for the answers before theirs."""
    upload_deadline_s: float = 15
    upload_grace_s: float = 5
    """After this time an upload must have kept up with the lowest rate; connections start slowly."""
    upload_bytes_per_s: int = 16 << 10
    batch_bytes: int = 32 * MIB
    batch_photos: int = 64
    batch_deadline_s: float = 60
    """For the upload of a batch, and once more for its answers."""
    duplicates_s: float = 5
    """After this time the search for duplicates answers with what it has found."""
    archive_bytes: int = 512 * MIB
    archive: ArchiveLimits = field(default_factory=ArchiveLimits)
    sync_photos: int = 500
    """Largest set that `POST /evaluate` answers at once; a larger one needs `Prefer: respond-async`."""
