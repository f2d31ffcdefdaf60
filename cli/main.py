"""The ``cryodc`` command and its verbs, each imported only when it is used."""

import difflib
import errno
import importlib
import keyword
import os
import sys

import rich_click as click
from cryodc_cli.options import error_console
from cryodc_cli.stopping import Stopped, how_to_go_on, stoppable

from cryodc.errors import InputError

# Verb → one line of help: so that `cryodc --help` imports no verb.
VERBS = {
    "check": "Say what a STAR file holds, and every problem with its row.",
    "import": "Make 3D subtomograms of stacks of 2D tilt images.",
    "extract": "Cut subtomograms out of tomograms at picks, with weights and poses.",
    "recentre": "Move particles to the middle of their boxes, by their mass or their poses.",
    "convert": "Convert picks between RELION, Dynamo, STOPGAP and CSV.",
    "simulate": "Make practice particles with known composition, poses and wedge.",
    "plan": "Say whether proteins would come apart in these particles, and how many it would take.",
    "bench": "Measure how fast each step is on this machine, and its peak memory.",
    "pack": "Put particles into one file that training reads batches from.",
    "train": "Train a model on particles and encode every one of them.",
    "cluster": "Cluster the content codes: which proteins are there.",
    "average": "Average each class, with half maps and FSC; align it first if need be.",
    "states": "Find the conformations within a class, or say that there is one.",
    "encode": "Give new particles the codes and clusters of a run, without training.",
    "select": "Keep some classes or tomograms as a STAR of their own.",
    "generate": "Show what a model has learned: decoded volumes and maps of codes.",
    "export": "Write particles, poses and maps for RELION, Warp and M, or Dynamo.",
    "map-back": "Place each class's average at its particles in their tomograms.",
    "status": "Say what a run has, what is stale, who is writing, and what comes next.",
    "identify": "Name each class after a known structure, or say that it is none of them.",
    "report": "Write one HTML page that shows everything a run found.",
    "view": "Open averages, particles and codes in napari.",
    "evaluate": "Say what the codes hold, and compare a run with a known truth.",
    "relion-job": "Run train, cluster, average and report as an External job of RELION.",
    "demo": "Run the whole story on simulated particles.",
}

# Each group of `cryodc --help`, and the folder of its verbs.
GROUPS = {
    "Prepare": ["check", "import", "extract", "recentre", "convert", "simulate", "plan", "pack"],
    "Learn": ["train", "cluster", "average", "states", "encode"],
    "Look": ["status", "identify", "generate", "report", "view"],
    "Take away": ["select", "export", "map-back", "relion-job", "evaluate", "bench", "demo"],
}

# Verbs that compute for long or write much: they have --dry-run.
HEAVY = (
    *("import", "extract", "recentre", "simulate", "pack", "train", "cluster", "average", "states", "encode"),
    *("identify", "generate", "select", "export", "map-back", "bench"),
)

# Verbs that several processes do together, started by torchrun.
TOGETHER = ("train", "average")

click.rich_click.COMMAND_GROUPS = {"cryodc": [{"name": name, "commands": verbs} for name, verbs in GROUPS.items()]}


def load_verb(verb: str) -> click.Command:
    """Import a verb."""
    # `import` is a word of Python: its module and function are called import_.
    name = f"{verb}_" if keyword.iskeyword(verb) else verb.replace("-", "_")
    folder = next(group for group, verbs in GROUPS.items() if verb in verbs).lower().replace(" ", "_")
    command: click.Command = getattr(importlib.import_module(f"cryodc_cli.{folder}.{name}"), name)
    if verb in HEAVY:
        from cryodc_cli.dry_run import add_dry_run

        add_dry_run(command)
    return command


class VerbGroup(click.RichGroup):
    """A group that imports a verb when it is called, and knows the others by their one line of help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Verbs in the order of the story."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb's command, imported if it is being called."""
        if cmd_name not in VERBS:
            return None
        if cmd_name not in sys.argv[1:]:
            return click.RichCommand(name=cmd_name, help=VERBS[cmd_name])
        return load_verb(cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The verb named; for one that there is not, the nearest."""
        name = args[0]
        if name not in VERBS and not name.startswith("-"):
            near = difflib.get_close_matches(name.lower().replace("_", "-"), VERBS, n=1, cutoff=0.55)
            ctx.fail(f"there is no verb {name!r}" + (f"; did you mean `{near[0]}`?" if near else ""))
        return super().resolve_command(ctx, args)


_HELP = """Tell which proteins are in subtomograms, in which states, and what they look like.

cryodc reads RELION or Warp particles, learns a content code and a transformation code for each, clusters the content
codes, aligns and averages every class, and writes classes, poses and maps back.

\b
Example:
  cryodc check particles.star
  cryodc train particles.star --out run/
  cryodc cluster run/
  cryodc average run/
  cryodc report run/
"""

# What a user can mend, of all that goes wrong with a file.
_OF_THE_USER = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.ENAMETOOLONG,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EFBIG,
    errno.ELOOP,
    errno.EMFILE,
}


@click.group(cls=VerbGroup, help=_HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="cryodc")
@click.pass_context
def cli(context: click.Context) -> None:
    """Run a verb."""
    n_processes, verb = int(os.environ.get("WORLD_SIZE", "1")), context.invoked_subcommand
    if n_processes > 1 and verb not in TOGETHER:
        raise InputError(
            f"{verb} runs in one process",
            expected=f"torchrun for {' and '.join(TOGETHER)} alone",
            found=f"{n_processes} processes",
            remedy=f"type cryodc {verb} without torchrun",
        )


def main() -> None:
    """Run a command; a user's mistake is one message and exit code 2, without a traceback."""
    try:
        with stoppable():
            cli.main(prog_name="cryodc")
    except Stopped as stopped:
        error_console().print(f"Stopped. {how_to_go_on(sys.argv[1:])}", markup=False, highlight=False)
        sys.exit(stopped.exit_code)
    except InputError as error:
        error_console(of_all=True).print(f"Error: {error}", style="bold red", markup=False, highlight=False)
        sys.exit(2)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            # The reader of our output, `head` for example, has gone; say nothing more.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        if error.errno not in _OF_THE_USER:
            raise
        said = InputError(
            f"a file cannot be used: {error.strerror}",
            file=error.filename,
            expected="room on the disk, and the right to read and write there",
            remedy="free room or change the rights of the folder, then give the command again",
        )
        error_console(of_all=True).print(f"Error: {said}", style="bold red", markup=False, highlight=False)
        sys.exit(2)


if __name__ == "__main__":
    main()
