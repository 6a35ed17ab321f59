"""Commands of aws, docker and sam."""

import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from infrastructure.deployment.settings import DeployError

_MISSING: Final = ("ImageNotFoundException", "does not exist")


@dataclass
class Shell:
    """Runs commands, and prints those that change something.

    Attributes:
        folder: that they run in.
        dry_run: print them only, and read nothing from AWS.
    """

    folder: Path
    dry_run: bool

    def run(self, *command: str, stdin: str | None = None) -> None:
        """Run a command.

        Raises:
            DeployError: it failed. Its output is on the terminal.
        """
        print(f"$ {shlex.join(command)}", flush=True)
        if not self.dry_run:
            done = subprocess.run(command, cwd=self.folder, input=stdin, text=True, check=False)  # noqa: S603  trusted
            if done.returncode:
                raise DeployError(f"{command[0]} {command[1]} failed with exit status {done.returncode}, see above.")

    def read(self, *command: str) -> str | None:
        """Return the output of a command; None if what it describes does not exist, and in a dry run.

        Raises:
            DeployError: it failed for another reason.
        """
        if self.dry_run:
            return None
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)  # noqa: S603  trusted
        if done.returncode and any(text in done.stderr for text in _MISSING):
            return None
        if done.returncode:
            raise DeployError(f"{shlex.join(command)} failed: {done.stderr.strip()}")
        return done.stdout.strip()


@dataclass(frozen=True)
class Aws:
    """Runs commands of the AWS CLI in one Region.

    Attributes:
        shell: runs the commands.
        region: Region of the commands.
        profile: profile of the AWS CLI; None for that of the environment.
    """

    shell: Shell
    region: str
    profile: str | None

    def run(self, *words: str) -> None:
        """Run a command, see `Shell.run`."""
        self.shell.run(*self._command(words))

    def read(self, *words: str) -> str | None:
        """Return the output of a command, see `Shell.read`."""
        return self.shell.read(*self._command(words))

    def _command(self, words: tuple[str, ...]) -> list[str]:
        return ["aws", *words, "--region", self.region, *(["--profile", self.profile] if self.profile else [])]
