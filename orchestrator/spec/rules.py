"""Rules that span several keys of a job, each a small pure function from a spec to findings.

Contradictions cannot run. Idle settings can, but would be ignored; a setting that some variant of a
comparison uses is not idle. Arithmetic with the number of workers lives in `plan`.
"""

from collections.abc import Callable, Iterator
from urllib.parse import parse_qsl, urlsplit

from orchestrator.spec.finding import Finding, did_you_mean
from orchestrator.spec.job import JobSpec
from orchestrator.spec.model import Gpt2Model, ResnetModel

Rule = Callable[[JobSpec], Iterator[Finding]]

_IGNORED = {
    "adamw": ("momentum",),
    "adam": ("momentum",),
    "sgd": ("betas", "eps"),
    "rmsprop": ("betas",),
    # Its own epsilon is a pair with another meaning.
    "adafactor": ("betas", "eps", "momentum"),
    "lion": ("eps", "momentum"),
}
"""Update rule -> settings it has not."""
_SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "databricks")
_SECRET_WORDS = ("password", "passwd", "pwd", "token", "secret")
_NO_SECRETS = (
    "a password here would be shown and recorded with every run; "
    "use MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, "
    "or the database's own password file"
)


def one_length(spec: JobSpec) -> Iterator[Finding]:
    """Exactly one of steps and epochs says how long a run is."""
    steps, epochs = spec.training.steps, spec.training.epochs
    if steps is None and epochs is None:
        yield Finding(key="training", message="missing steps; write steps: 100, or epochs: 3")
    elif steps is not None and epochs is not None:
        message = (
            "steps is given too; keep one of the two (--set training.steps=null keeps epochs, "
            "--set training.epochs=null keeps steps)"
        )
        yield Finding(key="training.epochs", message=message)


def batch_is_known(spec: JobSpec) -> Iterator[Finding]:
    """The global batch or the micro-batch is given; accumulation alone says nothing."""
    training = spec.training
    if training.global_batch_size is None and training.micro_batch_size is None:
        message = "missing global_batch_size; write global_batch_size: 64, or micro_batch_size: 8"
        yield Finding(key="training", message=message)


def warmup_fits(spec: JobSpec) -> Iterator[Finding]:
    """The warm-up ends before the run does."""
    warmup, steps = spec.training.schedule.warmup_steps, spec.training.steps
    if steps is not None and warmup > steps:
        message = f"{warmup} steps of warm-up in a run of {steps}; write at most {steps}"
        yield Finding(key="training.schedule.warmup_steps", message=message)


def offload_has_its_stage(spec: JobSpec) -> Iterator[Finding]:
    """Each kind of offload works with some stages only."""
    zero = spec.zero
    if zero.offload_params != "none" and zero.stage != 3:
        message = f"parameter offload needs stage 3, not {zero.stage}; write stage: 3, or none here"
        yield Finding(key="zero.offload_params", message=message)
    if zero.offload_optimizer == "cpu" and zero.stage == 0:
        message = "optimizer offload needs stage 1, 2 or 3, not 0; write stage: 1, or none here"
        yield Finding(key="zero.offload_optimizer", message=message)
    if zero.offload_optimizer == "nvme" and zero.stage != 3:
        message = f"offload to nvme needs stage 3, not {zero.stage}; write stage: 3, or cpu here"
        yield Finding(key="zero.offload_optimizer", message=message)


def nvme_has_a_path(spec: JobSpec) -> Iterator[Finding]:
    """Offload to NVMe says to which folder."""
    zero = spec.zero
    if "nvme" in (zero.offload_optimizer, zero.offload_params) and not zero.nvme_path:
        message = "missing; offload to nvme needs a folder: nvme_path: /mnt/nvme"
        yield Finding(key="zero.nvme_path", message=message)


def torch_engine_is_plain(spec: JobSpec) -> Iterator[Finding]:
    """The reference engine shards nothing, offloads nothing and knows no DeepSpeed."""
    if spec.training.engine != "torch":
        return
    zero = spec.zero
    way_out = "or write training.engine: deepspeed"
    if zero.stage != 0:
        message = f"engine torch needs stage 0, not {zero.stage}; write stage: 0, {way_out}"
        yield Finding(key="zero.stage", message=message)
    if spec.training.precision != "fp32":
        message = f"engine torch needs fp32; write fp32, {way_out}"
        yield Finding(key="training.precision", message=message)
    for name in ("offload_optimizer", "offload_params"):
        if getattr(zero, name) != "none":
            message = f"engine torch does not offload; write none, {way_out}"
            yield Finding(key=f"zero.{name}", message=message)
    if spec.training.optimizer.name == "lion":
        message = f"engine torch has no lion; choose another optimizer, {way_out}"
        yield Finding(key="training.optimizer.name", message=message)
    if spec.deepspeed:
        message = f"engine torch does not use it; leave it out, {way_out}"
        yield Finding(key="deepspeed", message=message)


def stages_agree(spec: JobSpec) -> Iterator[Finding]:
    """A ResNet has a width and a depth for each stage."""
    if isinstance(spec.model, ResnetModel):
        n_depths, n_widths = len(spec.model.config.depths), len(spec.model.config.hidden_sizes)
        if n_depths != n_widths:
            message = (
                f"{n_depths} depths for {n_widths} hidden_sizes; give as many of one as the other"
            )
            yield Finding(key="model.config.depths", message=message)


def heads_divide_width(spec: JobSpec) -> Iterator[Finding]:
    """Attention heads share the width evenly."""
    if isinstance(spec.model, Gpt2Model):
        width, heads = spec.model.config.n_embd, spec.model.config.n_head
        if width % heads:
            message = f"{width} is no multiple of n_head: {heads}; write {_multiples(width, heads)}"
            yield Finding(key="model.config.n_embd", message=message)


def tracking_is_a_store(spec: JobSpec) -> Iterator[Finding]:
    """Records go to a server or a database, and no password stands in the file."""
    uri = spec.tracking.uri
    if uri is None:
        return
    message = _wrong_uri(uri)
    if message:
        yield Finding(key="tracking.uri", message=message)


def nvme_path_is_used(spec: JobSpec) -> Iterator[Finding]:
    """A folder for NVMe offload is given only when something is offloaded to it."""
    zero = spec.zero
    if zero.nvme_path is not None and "nvme" not in (zero.offload_optimizer, zero.offload_params):
        message = "nothing is offloaded to nvme; leave it out, or write offload_optimizer: nvme"
        yield Finding(key="zero.nvme_path", message=message)


def optimizer_uses_its_settings(spec: JobSpec) -> Iterator[Finding]:
    """Settings that the update rule ignores are not given."""
    optimizer = spec.training.optimizer
    for name in _IGNORED[optimizer.name]:
        given = name in optimizer.model_fields_set and getattr(optimizer, name) != 0
        if given:
            message = f"{optimizer.name} has no {name}; leave it out, or choose another optimizer"
            yield Finding(key=f"training.optimizer.{name}", message=message)


def schedule_uses_its_settings(spec: JobSpec) -> Iterator[Finding]:
    """A constant learning rate has no end value."""
    schedule = spec.training.schedule
    if schedule.name == "constant" and schedule.min_lr_ratio != 0:
        message = "a constant schedule does not fall; leave it out, or write name: cosine or linear"
        yield Finding(key="training.schedule.min_lr_ratio", message=message)


CONTRADICTIONS: tuple[Rule, ...] = (
    one_length,
    batch_is_known,
    warmup_fits,
    offload_has_its_stage,
    nvme_has_a_path,
    torch_engine_is_plain,
    stages_agree,
    heads_divide_width,
    tracking_is_a_store,
)
IDLE_SETTINGS: tuple[Rule, ...] = (
    nvme_path_is_used,
    optimizer_uses_its_settings,
    schedule_uses_its_settings,
)


def contradictions(spec: JobSpec) -> tuple[Finding, ...]:
    """Find what cannot run."""
    return tuple(finding for rule in CONTRADICTIONS for finding in rule(spec))


def idle_settings(spec: JobSpec) -> tuple[Finding, ...]:
    """Find what would be ignored."""
    return tuple(finding for rule in IDLE_SETTINGS for finding in rule(spec))


def _multiples(width: int, heads: int) -> str:
    above = f"{(width // heads + 1) * heads}"
    return f"{width // heads * heads} or {above}" if width > heads else above


def _wrong_uri(uri: str) -> str | None:
    """Say what is wrong with a tracking URI, never repeating it: it may hold a password."""
    try:
        parts = urlsplit(uri)
        scheme = parts.scheme.partition("+")[0]
        has_host = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return "not a URI; write one such as http://host:5000"
    secrets = [name for name, _ in parse_qsl(parts.query) if name.lower() in _SECRET_WORDS]
    web = scheme in ("http", "https")
    if parts.password is not None or secrets or (web and parts.username is not None):
        return _NO_SECRETS
    if scheme == "file" or (not scheme and uri != "databricks"):
        return "MLflow 3 has no file store; leave uri out for the embedded sqlite store"
    if scheme and scheme not in _SCHEMES:
        hint = did_you_mean(scheme, _SCHEMES)
        return f"unknown scheme {scheme!r}; {hint}write one of {', '.join(_SCHEMES)}"
    if web and not has_host:
        return "no host in it; write one such as http://host:5000"
    return None
