"""The time constants of the engine, in seconds; a stack can scale them all by one factor (`time_scale`)."""

from django.conf import settings

SCALE = float(settings.STACK.get("time_scale", 1))

LEASE_S = 30 * SCALE  # a claimed step without a renewal for this long is lost
KEEPER_TICK_S = 1 * SCALE  # how often leases are renewed
HEAR_EVERY_S = 0.25 * SCALE  # how often running work hears of a cancel
FIRST_RING_S = 10 * SCALE  # a bell unanswered for this long is rung again, then 20, 40 … LAST_RING_S
LAST_RING_S = 300 * SCALE
RETRY_FIRST_S = 2 * SCALE  # pause before the first new attempt after a transient fault; doubles
RETRY_LAST_S = 60 * SCALE
SWEEP_TICK_S = 1 * SCALE
LONGEST_GAP_S = LEASE_S - 3 * KEEPER_TICK_S  # between rounds of the sweep; after a longer one leases prove nothing
MOST_LOSSES = 5  # a step that took its worker along this often is not tried again
KEEP_FINISHED_DAYS = 90  # steps and events of finished operations
