"""Refuses names that are not UTF-8 where srt must hide or protect a path: it is written in JavaScript, and cannot be given
such names. Standard library only.
"""

import fnmatch
import os
import re

# Maximum number of folders to search before a kernel starts, which takes a few seconds: a kernel can create any number.
# It is more than may be searched for git directories, which "allowGit" prevents.
MAX_FOLDERS = 200_000


def utf8(path: str, what: str) -> str:
    """Returns the path. Raises RuntimeError if srt would read another one."""
    if not is_utf8(path):
        raise RuntimeError(f"The {what} {os.fsencode(path)} cannot be protected: Its name is not UTF-8; rename it")
    return path


def is_utf8(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def check(patterns: list[str]) -> None:
    """Raises RuntimeError if a pattern matches a path with such a name; see `ends`."""
    wildcards = [pattern for pattern in patterns if "*" in pattern or "?" in pattern or "[" in pattern]
    for pattern in patterns:
        if pattern not in wildcards:
            utf8(os.path.realpath(pattern), "path")
    tops = {fixed_part(pattern) for pattern in wildcards}
    for top in tops:
        if not any(top.startswith(f"{other.rstrip('/')}/") for other in tops if other != top):
            check_below(top, [ends(pattern) for pattern in wildcards])


def fixed_part(pattern: str) -> str:
    """Returns the folder that contains all matches."""
    return os.path.dirname(re.split(r"[*?[{]", pattern, maxsplit=1)[0]) or "/"


def ends(pattern: str) -> re.Pattern[str]:
    """Returns an expression that matches at least the last part of a pattern: an excess refusal can be avoided."""
    last = pattern.rsplit("/", 1)[-1]
    return re.compile(".*" if re.search(r"[\[{}\\]", last) else fnmatch.translate(last), re.DOTALL)


def check_below(top: str, matchers: list[re.Pattern[str]]) -> None:
    todo = [top]
    seen: set[str] = set()
    for folder in todo:
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    # srt follows links. Their targets are searched in any case, unless they have such a name.
                    real = os.path.realpath(entry.path) if entry.is_symlink() else entry.path
                    is_known = is_utf8(entry.path) and is_utf8(real)
                    if not is_known and any(matcher.match(entry.name) for matcher in matchers):
                        utf8(real if is_utf8(entry.path) else entry.path, "path")
                    if entry.is_dir() and real not in seen and (real == entry.path or not is_utf8(real)):
                        seen.add(real)
                        todo.append(real)
                        if len(todo) > MAX_FOLDERS:
                            raise RuntimeError(too_many(top))
        except OSError:
            continue  # not readable, or gone


def too_many(top: str) -> str:
    return (
        f'The folder "{top}" has more than {MAX_FOLDERS} folders, too many to search for what is denied in them; choose '
        'a "workingDir" with fewer, or begin the patterns of "denyRead" and "denyWrite" with the path of one'
    )
