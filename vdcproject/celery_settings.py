"""Settings of Celery, read when the first bell is rung or heard; the reasons stand beside them."""

import os

from core.stack import read_stack

# Without a limit a mute Redis blocks publishers for ever. kombu asks several times within one call, so a request waits
# about three times as long; a worker waits for bells in BRPOP, which takes its second.
SOCKET_TIMEOUT_S = 0.3 if os.environ.get("VDC_PROCESS") == "web" else 2

broker_url = read_stack()["redis_url"]
broker_transport_options = {
    "priority_steps": [0],  # one key per queue in BRPOP, not four
    "ack_emulation": False,  # a doorbell needs no acknowledgement, and none is redelivered
    "socket_timeout": SOCKET_TIMEOUT_S,
    "socket_connect_timeout": 2,
    "health_check_interval": 3,  # finds a half-open line after 4 s instead of 48 s
}
broker_connection_retry_on_startup = True
broker_connection_max_retries = None
worker_consumer = "vdcproject.consumer:Consumer"  # reconnects within a second

task_publish_retry = True  # False is worse: 6 s per call
task_publish_retry_policy = {"max_retries": 1, "interval_start": 0.1, "interval_step": 0.1, "interval_max": 0.2}
task_ignore_result = True
result_backend = None
task_acks_late = False
task_serializer = "json"
accept_content = ["json"]

worker_prefetch_multiplier = 1
worker_send_task_events = False
worker_hijack_root_logger = False
worker_soft_shutdown_timeout = 10
worker_enable_remote_control = True
