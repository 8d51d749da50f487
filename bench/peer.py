"""python -m bench.peer --model DIR --version DIR --port N: the same search, written in the simplest way.

FastAPI with a `def` endpoint; Pillow and torchvision transforms; eager torch in fp32 in inference mode with its default
threads; an IndexFlatIP over the service's vectors; k = 5. It has no batching, limits or checks. Weights and input size
are the served model's.
"""

import argparse
from pathlib import Path
from typing import Any

import faiss
import torch
import uvicorn
from fastapi import FastAPI, UploadFile
from PIL import Image
from torchvision import transforms

from indexer.items import ItemTable
from indexer.manifest import INDEX_NAME, ITEMS_NAME
from model.card import load_card
from model.network.embedding_net import load_network


def create_app(model: Path, version: Path) -> FastAPI:
    """An application over a model's directory and an index version's."""
    card = load_card(model)
    network = load_network(model, card)
    index = faiss.read_index(str(version / INDEX_NAME))
    items = ItemTable(version / ITEMS_NAME).all()
    spec = card.input
    size = (spec.crop, spec.crop) if spec.fit == "stretch" else spec.resize
    preprocess = transforms.Compose(
        [
            transforms.Resize(size),
            transforms.CenterCrop(spec.crop),
            transforms.ToTensor(),
            transforms.Normalize(spec.mean, spec.std),
        ]
    )
    app = FastAPI()

    @app.post("/search")
    def search(file: UploadFile) -> dict[str, Any]:
        image = preprocess(Image.open(file.file).convert("RGB"))
        with torch.inference_mode():
            embedding = network.embed(image[None]).numpy()
        scores, rows = index.search(embedding, 5)
        found = [(items[row], score) for row, score in zip(rows[0], scores[0].tolist(), strict=True) if row >= 0]
        return {"results": [{"id": item.id, "class": item.label, "score": score} for item, score in found]}

    return app


def main() -> None:
    """Command line; see the module."""
    parser = argparse.ArgumentParser(prog="python -m bench.peer")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--version", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    uvicorn.run(create_app(options.model, options.version), port=options.port)


if __name__ == "__main__":
    main()
