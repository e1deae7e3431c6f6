"""A TFLite file as such: opened, and what is packed into it beside the network.

Labels and metadata lie in it as the associated files of TFLite's metadata do, a ZIP
archive behind the network, which `unzip` and the ecosystem's tools read.
"""

import io
import json
import os
import zipfile

from lca_keras.base import console

DEFAULT = "model.tflite"
FORMS = ("float32", "float16", "int8-dynamic", "int8")
LABELS, ABOUT = "labels.txt", "lca_keras.json"


def runner(content, threads):
    """The signature `serving_default` of a file's bytes; of others a `ValueError`."""
    from ai_edge_litert.interpreter import Interpreter

    with console.stderr_to(os.devnull):  # It tells which of its parts are at work.
        interpreter = Interpreter(model_content=content, num_threads=threads)
        interpreter.allocate_tensors()
        return interpreter.get_signature_runner("serving_default")


def packed(content, artists, about):
    """A network's bytes with its labels and a dict for JSON behind them."""
    file = io.BytesIO(content)
    with zipfile.ZipFile(file, "a") as archive:
        for name, text in (
            (LABELS, "".join(f"{artist}\n" for artist in artists)),
            (ABOUT, json.dumps(about, indent=2, ensure_ascii=False)),
        ):
            # Of no date, so that equal models are equal files.
            entry = zipfile.ZipInfo(name)
            archive.writestr(entry, text.encode("utf-8"), zipfile.ZIP_DEFLATED)
    return file.getvalue()


def unpacked(path):
    """A network's bytes without what `packed` has put behind them."""
    content = path.read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        first = min(entry.header_offset for entry in archive.infolist())
    return content[:first]


def about(path):
    """The dict that `packed` has put into a file; a `ValueError` if there is none."""
    try:
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read(ABOUT))
    except (zipfile.BadZipFile, KeyError) as error:
        raise ValueError(f"{path}: no TFLite file of this package ({error})") from error
