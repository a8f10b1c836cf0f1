"""Names that srt, which is written in JavaScript, cannot be given: those that are not UTF-8. What has to be hidden or
kept from being written below such a name is refused. Standard library only.
"""

import fnmatch
import os
import re


def utf8(path, what):
    """The path; RuntimeError if srt would take it for another."""
    if not is_utf8(path):
        raise RuntimeError(f"The {what} {os.fsencode(path)} cannot be protected: Its name is not UTF-8; rename it")
    return path


def is_utf8(path):
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def check(patterns):
    """RuntimeError if a pattern matches what has such a name, or lies below one that has; see `ends`."""
    wildcards = [pattern for pattern in patterns if "*" in pattern or "?" in pattern or "[" in pattern]
    for pattern in patterns:
        if pattern not in wildcards:
            utf8(os.path.realpath(pattern), "path")
    tops = {fixed_part(pattern) for pattern in wildcards}
    for top in tops:
        if not any(top.startswith(f"{other.rstrip('/')}/") for other in tops if other != top):
            check_below(top, [ends(pattern) for pattern in wildcards])


def fixed_part(pattern):
    """The folder that all matches are in."""
    return os.path.dirname(re.split(r"[*?[{]", pattern, maxsplit=1)[0]) or "/"


def ends(pattern):
    """Returns an expression that matches at least the last part of a pattern: an excess refusal can be avoided."""
    last = pattern.rsplit("/", 1)[-1]
    return re.compile(".*" if re.search(r"[\[{}\\]", last) else fnmatch.translate(last), re.DOTALL)


def check_below(top, matchers):
    todo, seen = [top], set()
    for folder in todo:
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    # srt follows links; where these lead is on the way in any case, unless it has such a name.
                    real = os.path.realpath(entry.path) if entry.is_symlink() else entry.path
                    is_known = is_utf8(entry.path) and is_utf8(real)
                    if not is_known and any(matcher.match(entry.name) for matcher in matchers):
                        utf8(real if is_utf8(entry.path) else entry.path, "path")
                    if entry.is_dir() and real not in seen and (real == entry.path or not is_utf8(real)):
                        seen.add(real)
                        todo.append(real)
        except OSError:
            continue  # not readable, or gone
