"""The one reader of YAML files."""

import contextlib
import pathlib

import yaml

from lca_keras.base.errors import UserError


class _Loader(yaml.SafeLoader):
    """Safe, and a key that stands twice in a mapping is an error."""

    def construct_mapping(self, node, deep=False):
        seen = {}
        for key, _ in node.value:
            line, name = key.start_mark.line + 1, (key.tag, str(key.value))
            if isinstance(key, yaml.ScalarNode) and name in seen:
                raise _TwiceError(
                    f"line {line}: {key.value!r} stands twice, in line {seen[name]} too"
                )
            seen[name] = line
        return super().construct_mapping(node, deep)


class _TwiceError(Exception):
    pass


@contextlib.contextmanager
def content(path, kind, error):
    """Gives what is in a YAML file, a dict; names the file in what goes wrong.

    Args:
        path: The file.
        kind: What it is, such as `"config"`, for errors.
        error: Class of the errors, a `UserError`.

    Raises:
        UserError: The file is missing, is not YAML, is no mapping, or has a key twice;
            or what the caller raises about it, in the class that it has.
    """
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8")
        raw = yaml.load(text, _Loader)
    except OSError as failed:
        raise error(f"cannot read {kind} {path}: {failed.strerror}") from failed
    except _TwiceError as failed:
        raise error(f"{kind} {path}, {failed}") from failed
    except (yaml.YAMLError, UnicodeDecodeError) as failed:
        raise error(f"{kind} {path} is not YAML: {failed}") from failed
    if not isinstance(raw, dict):
        raise error(f"{kind} {path}: expected names with values, received {raw!r}")
    try:
        yield raw
    except UserError as failed:
        raise type(failed)(f"{kind} {path}: {failed}") from failed
