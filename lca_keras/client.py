"""Names the singer of songs, with a model that TF Serving serves."""

import sys

from lca_keras.base import console
from lca_keras.terminal import answers, arguments


def main(argv=None):
    """Command line of the client."""
    parser = arguments.parser_of("lca_keras.client", __doc__)
    server = parser.add_mutually_exclusive_group(required=True)
    server.add_argument("--grpc", metavar="HOST:PORT", help="of its gRPC port")
    server.add_argument("--rest", metavar="URL", help="of its REST port")
    add = parser.add_argument
    add("--model", required=True, metavar="NAME", help="as it is served")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--version", type=int, help="default: the server's choice")
    which.add_argument("--label", help="of a version, such as stable or canary")
    told = "that an answer may take; default: %(default)g"
    positive = {"type": float, "action": arguments.Limited, "above": 0}
    add("--timeout", default=30.0, metavar="SECONDS", help=told, **positive)
    told = "songs that are asked about at a time; default: %(default)d"
    add("--parallel", default=4, help=told, **arguments.WHOLE)
    answers.add_options(parser)
    return arguments.command(parser.parse_args, _ask, argv)


def _ask(args):
    from lca_keras.inference import identification, servers

    answers.check_options(args)
    songs, errors = answers.listed(args.songs)
    kind = servers.GrpcServer if args.grpc else servers.RestServer
    address = args.grpc or args.rest
    with console.working(f"Asking {address} for {args.model}"):
        server = kind(address, args.model, args.version, args.label, args.timeout)
    identifier = identification.Identifier.of_server(server, args.separator)
    identifier.check(answers.vocals_of(args, songs))
    return answers.answer(identifier, args, songs, errors, workers=args.parallel)


if __name__ == "__main__":
    sys.exit(main())
