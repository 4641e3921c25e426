"""The one list of Mailroom's own processes and their environment.

The local stack (`deploy.local`) and `docker-compose.yml` (`deploy.compose`) are both derived from this
module, so that they cannot drift apart. What differs between the two is only `Addresses` (where things
are) and `Secrets` (values here, references to variables there).
"""

from dataclasses import dataclass

REGION = "us-east-1"
STACK_NAME = "mailroom"
ACCOUNT = "000000000000"

# What the templates name their resources with their default parameters, in the emulator's account.
QUEUE_NAME = "mailroom-local-notifications"
DEAD_LETTER_QUEUE_NAME = "mailroom-local-notifications-dead"
TOPIC_NAME = "mailroom-local-notifications"
BUCKET_NAME = f"mailroom-local-content-{ACCOUNT}"
FILES_BUCKET_NAME = f"mailroom-local-files-{ACCOUNT}"
FILES_QUEUE_NAME = "mailroom-local-files"
FILES_DEAD_LETTER_QUEUE_NAME = "mailroom-local-files-dead"
CONFIGURATION_SET = "mailroom-local"

FROM_ADDRESS = "no-reply@mailroom.example"
REPLY_TO_ADDRESS = "support@mailroom.example"


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a process finds the others. `http_host` is what the services bind to, `gateway` whom they believe about who
    calls.
    """

    http_host: str
    email_port: int
    events_port: int
    files_port: int
    kafka_bootstrap: str
    mongo_url: str
    aws_url: str
    s3_public_url: str
    """Where browsers reach S3: signed addresses name it."""
    simulator_url: str
    public_url: str
    gateway: str
    aws_access_key: str = "test"


@dataclass(frozen=True, slots=True)
class AwsResources:
    """Outputs of the CloudFormation templates that the services need. `bucket` is the one for large contents."""

    queue_url: str = ""
    dead_letter_queue_url: str = ""
    topic_arn: str = ""
    bucket: str = ""
    configuration_set: str = ""
    files_bucket: str = ""
    files_queue_url: str = ""
    files_dead_letter_queue_url: str = ""
    distribution_domain: str = ""
    distribution_key_pair_id: str = ""
    distribution_private_key: str = ""


@dataclass(frozen=True, slots=True)
class Secrets:
    """Generated once for a local stack; `${VARIABLE}` references in Compose. Never in git."""

    file_encryption_key: str
    webhook_secret: str
    jwt_secret: str


AWS_VARIABLES = frozenset(
    {
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_ENDPOINT_URL",
        "AWS_EC2_METADATA_DISABLED",
    }
)
PLATFORM_VARIABLES = frozenset(
    {
        "FILE_ENCRYPTION_KEY",
        "MAILROOM_KAFKA_BOOTSTRAP",
        "MAILROOM_MONGO_URL",
        "MAILROOM_PUBLIC_URL",
        "MAILROOM_HTTP_HOST",
        "MAILROOM_TRUSTED_PROXIES",
        "MAILROOM_JWT_ALGORITHM",
        "MAILROOM_JWT_SECRET",
    }
)
PROVIDERS = (
    "MAILROOM_PROVIDERS",
    "MAILROOM_PROVIDER_CHOICE",
    "SENDGRID_API_KEY",
    "MAILROOM_SENDGRID_URL",
    "MAILROOM_SENDGRID_MAX_SEND_RATE",
    "MAILROOM_SENDGRID_DAILY_LIMIT",
    "MAILGUN_API_KEY",
    "MAILGUN_DOMAIN",
    "MAILROOM_MAILGUN_URL",
    "MAILROOM_MAILGUN_MAX_SEND_RATE",
    "MAILROOM_MAILGUN_DAILY_LIMIT",
    "MAILROOM_SMTP_HOST",
    "MAILROOM_SMTP_PORT",
    "MAILROOM_SMTP_TLS",
    "MAILROOM_SMTP_USERNAME",
    "MAILROOM_SMTP_PASSWORD",
    "MAILROOM_SMTP_BOUNCE_DOMAIN",
    "MAILROOM_SMTP_MAX_SEND_RATE",
    "MAILROOM_SMTP_DAILY_LIMIT",
    "MAILROOM_MAILGUN_ASK_AFTER_SECONDS",
    "MAILROOM_WARM_UP",
    "MAILROOM_UNKNOWN_AUTH",
    "MAILROOM_RESEND_AFTER_URGENT_SECONDS",
    "MAILROOM_RESEND_AFTER_SECONDS",
    "MAILROOM_PLANS",
)
"""Who carries mail; unset, SES alone."""

WEBHOOKS = ("MAILROOM_SNS_TOPICS", "MAILROOM_SENDGRID_WEBHOOK_KEYS", "MAILROOM_MAILGUN_WEBHOOK_KEYS")
"""Who may POST to the email service; unset, nobody."""

EMAIL_VARIABLES = frozenset(
    {
        *AWS_VARIABLES,
        *PLATFORM_VARIABLES,
        "AWS_ENDPOINT_URL_SESV2",
        "AWS_SES_FROM_EMAIL",
        "AWS_SES_REPLY_TO",
        "SES_CONFIGURATION_SET",
        "WEBHOOK_SECRET",
        "MAILROOM_CONTENT_BUCKET",
        "MAILROOM_EMAIL_DATABASE",
        "MAILROOM_EMAIL_PORT",
        "MAILROOM_NOTIFICATIONS_QUEUE_URL",
    }
)
FILES_VARIABLES = frozenset(
    {
        *AWS_VARIABLES,
        *PLATFORM_VARIABLES,
        "AWS_S3_BUCKET",
        "CLOUDFRONT_DOMAIN",
        "MAILROOM_CLOUDFRONT_KEY_PAIR_ID",
        "MAILROOM_CLOUDFRONT_PRIVATE_KEY",
        "MAILROOM_FILES_DATABASE",
        "MAILROOM_FILES_PORT",
        "MAILROOM_FILES_QUEUE_URL",
        "MAILROOM_S3_PUBLIC_ENDPOINT",
    }
)
EVENTS_VARIABLES = frozenset({*PLATFORM_VARIABLES, "MAILROOM_EVENTS_DATABASE", "MAILROOM_EVENTS_PORT"})


FIRST = 1024
"""CPU weight of urgent mail and of what it needs: Docker's default."""

SECOND = 512
"""CPU weight of what people look at."""

IN_THE_BACKGROUND = 128
"""CPU weight of what nobody waits for by the millisecond: a campaign then takes what urgent mail leaves over."""

FEW_CONNECTIONS = ("MAILROOM_MONGO_CONNECTIONS", "4")
"""MongoDB weighs nothing: what a campaign has under way there, urgent mail shares the cores with. Four keep two cores
busy; urgent mail has as many as it likes.
"""


@dataclass(frozen=True, slots=True)
class Process:
    """One long-running process of ours.

    `module` is run as `python -m …`; `variables` is all of `service_environment` that it gets, and `optional` what it
    gets beside that where it is set; `needs` names what
    must be ready before it starts; `port_setting` is the port it listens on; `ready_path` answers 200 once it can do
    its work, `live_path` as long as it should not be restarted. `stop_seconds` is how long it may take to drain after
    SIGTERM. `own` are values of variables that differ from process to process. `cpu_shares` is its weight when more
    CPU is wanted than there is.
    """

    name: str
    module: tuple[str, ...]
    variables: frozenset[str]
    port_setting: str
    needs: tuple[str, ...]
    ready_path: str = "/readyz"
    live_path: str = "/healthz"
    stop_seconds: int = 25
    memory: str = "768m"
    cpus: str = "1.0"
    own: tuple[tuple[str, str], ...] = ()
    cpu_shares: int = IN_THE_BACKGROUND
    optional: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Job:
    """Something that runs to its end before others may start, and may be run again at any time."""

    name: str
    module: tuple[str, ...]
    variables: frozenset[str]
    needs: tuple[str, ...]


SIMULATOR = "simulator"
BACKING = ("kafka", "mongo", "aws")
GATEWAY = "gateway"
EMAIL_URGENT = "email-urgent"
"""Takes in and sends urgent mail alone: a campaign in `email` then has neither its event loop nor its core."""

PROCESSES = (
    Process(
        name="email",
        module=("services.email", "all"),
        variables=EMAIL_VARIABLES,
        optional=frozenset((*PROVIDERS, *WEBHOOKS)),
        port_setting="MAILROOM_EMAIL_PORT",
        needs=("mongo", "topics", "resources", SIMULATOR),
        own=(("MAILROOM_EMAIL_LANES", "high,normal,low"), FEW_CONNECTIONS),
    ),
    Process(
        name=EMAIL_URGENT,
        module=("services.email", "lanes"),
        variables=EMAIL_VARIABLES,
        optional=frozenset((*PROVIDERS, *WEBHOOKS)),
        port_setting="MAILROOM_EMAIL_PORT",
        needs=("mongo", "topics", "resources", SIMULATOR),
        own=(("MAILROOM_EMAIL_LANES", "urgent"),),
        cpu_shares=FIRST,
    ),
    Process(
        name="files",
        module=("services.files", "all"),
        variables=FILES_VARIABLES,
        port_setting="MAILROOM_FILES_PORT",
        needs=("mongo", "topics", "resources"),
        own=(FEW_CONNECTIONS,),
    ),
    Process(
        name="events",
        module=("services.events", "all"),
        variables=EVENTS_VARIABLES,
        port_setting="MAILROOM_EVENTS_PORT",
        needs=("mongo", "topics"),
        own=(FEW_CONNECTIONS,),
        cpu_shares=SECOND,
    ),
)

JOBS = (
    Job(
        name="topics",
        module=("services.cli", "topics", "apply"),
        variables=frozenset({"MAILROOM_KAFKA_BOOTSTRAP"}),
        needs=("kafka",),
    ),
    Job(
        name="resources",
        module=("deploy.local.resources",),
        variables=AWS_VARIABLES | {"MAILROOM_PUBLIC_URL"},
        needs=("aws",),
    ),
)


# What Kafka must be set to wherever it runs as one node; addresses and folders come on top.
KAFKA_SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "auto.create.topics.enable": "false",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "8",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "8",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
}


MONGO_OPTIONS = (
    "--replSet=rs0",
    "--slowms=3600000",  # its log tells slow commands with all their values: addresses, subjects
)


def emulator_environment(host: str, bind: str, port: int) -> dict[str, str]:
    """Environment of the AWS emulator: with AUTH it enforces signatures and policies as AWS does."""
    return {
        "AUTH": "true",
        "MINISTACK_REGION": REGION,
        "MINISTACK_HOST": host,
        "BIND_HOST": bind,
        "GATEWAY_PORT": str(port),
        "LOG_LEVEL": "WARNING",
    }


def simulator_command(host: str, port: int, smtp_port: int, at: Addresses, state_dir: str) -> list[str]:
    """Arguments of Python that start the simulator of the mail providers."""
    command = ["-m", "deploy.local.simulator", "--host", host, "--port", str(port), "--smtp-port", str(smtp_port)]
    command += ["--sns-endpoint", at.aws_url, "--region", REGION, "--state-dir", state_dir]
    return [*command, "--bounces-to", at.kafka_bootstrap]


def aws_environment(aws_url: str, access_key: str = "test") -> dict[str, str]:
    """Credentials and address of the emulator, under the names every AWS client reads. An access key of twelve digits
    names an account with queues, buckets and stacks of its own.
    """
    return {
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": access_key,
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_ENDPOINT_URL": aws_url,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def service_environment(at: Addresses, aws: AwsResources, secrets: Secrets) -> dict[str, str]:
    """All variables by name: the `mailroom` command gets them all, each process and job its own `variables`."""
    return {
        **aws_environment(at.aws_url, at.aws_access_key),
        "AWS_ENDPOINT_URL_SESV2": at.simulator_url,
        "AWS_SES_FROM_EMAIL": FROM_ADDRESS,
        "AWS_SES_REPLY_TO": REPLY_TO_ADDRESS,
        "SES_CONFIGURATION_SET": aws.configuration_set,
        "MAILROOM_CONTENT_BUCKET": aws.bucket,
        "AWS_S3_BUCKET": aws.files_bucket,
        "CLOUDFRONT_DOMAIN": aws.distribution_domain,
        "MAILROOM_CLOUDFRONT_KEY_PAIR_ID": aws.distribution_key_pair_id,
        "MAILROOM_CLOUDFRONT_PRIVATE_KEY": aws.distribution_private_key,
        "MAILROOM_S3_PUBLIC_ENDPOINT": at.s3_public_url,
        "WEBHOOK_SECRET": secrets.webhook_secret,
        "FILE_ENCRYPTION_KEY": secrets.file_encryption_key,
        "MAILROOM_KAFKA_BOOTSTRAP": at.kafka_bootstrap,
        "MAILROOM_MONGO_URL": at.mongo_url,
        "MAILROOM_EMAIL_DATABASE": "mailroom_email",
        "MAILROOM_EVENTS_DATABASE": "mailroom_events",
        "MAILROOM_FILES_DATABASE": "mailroom_files",
        "MAILROOM_FILES_QUEUE_URL": aws.files_queue_url,
        "MAILROOM_NOTIFICATIONS_QUEUE_URL": aws.queue_url,
        "MAILROOM_PUBLIC_URL": at.public_url,
        "MAILROOM_HTTP_HOST": at.http_host,
        "MAILROOM_TRUSTED_PROXIES": at.gateway,
        "MAILROOM_EMAIL_PORT": str(at.email_port),
        "MAILROOM_EVENTS_PORT": str(at.events_port),
        "MAILROOM_FILES_PORT": str(at.files_port),
        "MAILROOM_JWT_ALGORITHM": "HS256",
        "MAILROOM_JWT_SECRET": secrets.jwt_secret,
    }
