"""Files that appear whole or not at all."""

import contextlib
import io
import os
import secrets
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from jaxunlearn._check import InputError

if sys.platform != "win32":
    import fcntl


def print_any_name() -> None:
    """Lets standard output show names of files that are no text, escaped."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def check_free(folder: Path, names: Iterable[str]) -> None:
    """Refuses a folder of results that holds files under the names of those to be written.

    Raises:
      InputError: if it does.
    """
    taken = [name for name in names if os.path.lexists(folder / name)]
    if taken:
        raise InputError(
            f"{folder} holds {', '.join(taken)} already, which would be replaced; give another --out, or --force to "
            "replace what is there."
        )


def unwritable(folder: Path, reason: str | None) -> InputError:
    """What to say of an output folder that nothing can be written into."""
    return InputError(f"The output folder {folder} cannot be written ({reason}); give another --out.")


def check_output(
    out: Path,
    written: Sequence[str],
    *,
    begun: bool,
    finished: bool,
    resume: bool,
    force: bool,
    activity: str = "run",
    result: str = "run",
) -> None:
    """Refuses an output folder that cannot be written or holds something already, or files under the same names.

    Args:
      out: the folder.
      written: names of the files that will be written.
      begun: whether it holds an interrupted activity.
      finished: whether it holds a result.
      resume: go on with that, which may have written some of them.
      force: replace what is there.
      activity: what that is called.
      result: what its result is called.

    Raises:
      InputError: if so, if another run writes into it, or if there is nothing to resume.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; give a folder with --out.")
    if out.exists():
        with only_writer(out):
            pass
    if resume and force:
        raise InputError(f"--resume goes on with a {activity} and --force replaces it; give one of them.")
    if resume and not begun:
        found = f"a finished {result}" if finished else f"no interrupted {activity}"
        raise InputError(f"{out} holds {found}, so there is nothing to resume; leave --resume away.")
    if (begun or finished) and not (resume or force):
        found = f"an interrupted {activity}" if begun else f"a finished {result}"
        advice = "--resume to go on with it, or " if begun else ""
        raise InputError(
            f"{out} holds {found} already; give {advice}--force to replace it, or another --out."
        )
    if not (resume or force):
        check_free(out, written)
    parent = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not parent.is_dir() or not _writable(parent):
        raise unwritable(out, f"no permission for {parent}")


@contextlib.contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Makes a folder of results and keeps other runs out of it until the end of the context.

    The lock goes with the process, however that ends; Windows has none. A folder that was made for nothing goes, too.

    Raises:
      InputError: if it cannot be made, or another run holds it.
    """
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error.strerror) from None
    with contextlib.ExitStack() as stack:
        if is_new:
            stack.callback(remove_empty, folder)
        if sys.platform == "win32":
            yield
            return
        # Folders that cannot be read, and file systems without locks, go without.
        with contextlib.suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, descriptor)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(
                    f"Another run is writing into {folder}; wait for its end, or give another --out."
                ) from None
        yield


def remove_empty(folder: Path) -> None:
    """Removes a folder, unless it holds something."""
    with contextlib.suppress(OSError):
        folder.rmdir()


def _writable(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file under a temporary name beside it and moves it into place."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def write_together(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Writes several files of a folder, the last of the mapping last: it marks the set as complete."""
    for name, content in contents.items():
        write_whole(folder / name, content)
