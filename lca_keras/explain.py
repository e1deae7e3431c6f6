"""Shows what in a song speaks for an artist, with a run or an exported model.

`python -m lca_keras.explain --model runs/NAME SONG --out why.png` draws the vote over
time and, over the spectrogram, the class activation (Grad-CAM) for the singer that is
named, and for others on request; `--html` writes a page that plays the song along.
"""

import os
import sys

from lca_keras.base import console
from lca_keras.base.errors import UserError
from lca_keras.terminal import arguments


def main(argv=None):
    """Command line of the explanation."""
    parser = arguments.parser_of("lca_keras.explain", __doc__)
    add = parser.add_argument
    add("song", metavar="SONG", help="audio file")
    add("--model", required=True, help="runs/NAME, or saved_models/NAME")
    for option, ending, told in (
        ("--out", ".png", "draw a picture"),
        ("--html", ".html", "write a page that plays the song"),
    ):
        written = {"action": arguments.Output, "ending": ending, "help": told}
        add(option, metavar=f"FILE{ending}", **written)
    add("--artist", metavar="NAME", help="also what speaks for this one")
    add("--against", metavar="NAME", help="and what for that one")
    add(
        "--layer",
        metavar="LAYER",
        help="where the map is taken, convolution or fgnl; default: the last that the "
        "model has",
    )
    add("--vocals", metavar="FILE", help="the song's voice alone")
    add("--accompaniment", metavar="FILE", help="everything else of it")
    told = "makes the stems, to tell the voice's share of the map"
    add("--separator", metavar="umxl|umxhq|FOLDER", help=told)
    return arguments.finish(parser, _explain, argv)


def _explain(args):
    if not (args.out or args.html):
        raise UserError("say where to: --out FILE.png, --html FILE.html, or both")
    console.quiet_tensorflow()
    import numpy as np

    from lca_keras.audio.decode import AudioError
    from lca_keras.drawing import plots
    from lca_keras.explanation import pictures, song_page
    from lca_keras.explanation.explainer import Explainer
    from lca_keras.workflow.run import Run

    options = args.layer, args.separator
    if os.path.exists(os.path.join(args.model, "job.json")):
        model = Run.load(args.model).explainer(*options)
    else:
        model = Explainer.of_export(args.model, *options)
    wanted = [name for name in (args.artist, args.against) if name]
    try:
        found = model.explain(args.song, wanted, args.vocals, args.accompaniment)
    except AudioError as error:
        raise UserError(f"{args.song}: {error}") from error
    clips = found.probabilities.argmax(axis=1)
    votes = int(np.sum(clips == found.artists.index(found.singer)))
    print(f"{args.song}: {found.singer} ({votes} of {len(clips)} clips)")
    for note in found.notes:
        print(f"  note: {note}")
    for name, shares in found.voice_shares.items():
        print(
            f"  what speaks for {name}: {np.nanmean(shares):.0%} of it on cells that "
            f"the voice dominates ({found.voice_cells:.0%} if spread evenly)"
        )
    if args.out:
        plots.save_figure(pictures.figure(found), args.out)
        print(f"drawn to {args.out}")
    if args.html:
        song_page.write(found, args.html)
        print(f"written to {args.html}")


if __name__ == "__main__":
    sys.exit(main())
