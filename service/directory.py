"""The index directory that the settings name, with its vectors in FAISS files or in Milvus."""

from pathlib import Path

from indexer.versions import IndexDirectory
from model.errors import SettingsInvalid
from service.settings import FAISS, MILVUS, MILVUS_ADDRESS, PREFIX, Settings, load_settings


def open_directory(root: Path, settings: Settings | None = None) -> IndexDirectory:
    """An index directory; by default with the settings of the environment, as commands read them.

    Raises SettingsInvalid, and MissingDependency where Milvus's client is not installed.
    """
    settings = settings or load_settings()
    if settings.store == FAISS:
        return IndexDirectory(root)
    from indexer.milvus_versions import MilvusDirectory  # the client takes a second to import

    token, path = "", settings.store_token_file
    if path is not None:
        try:
            token = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as problem:
            raise SettingsInvalid(f"{PREFIX}STORE_TOKEN_FILE is wrong: {path} cannot be read as text.") from problem
    return MilvusDirectory(root, MILVUS_ADDRESS if settings.store == MILVUS else settings.store, token)
