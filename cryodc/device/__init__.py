"""Where tensors lie, and several processes: training together, and sharing particles."""

from cryodc.device.processes import (
    Team,
    average_gradients,
    average_number,
    choose_device,
    join_team,
    leader_first,
    memory_budget,
    wait_for_all,
)
from cryodc.device.sharing import as_the_leader, by_leader, led, own_part, share, sharing, sharing_team, sum_over_team

__all__ = [
    "Team",
    "as_the_leader",
    "average_gradients",
    "average_number",
    "by_leader",
    "choose_device",
    "join_team",
    "leader_first",
    "led",
    "memory_budget",
    "own_part",
    "share",
    "sharing",
    "sharing_team",
    "sum_over_team",
    "wait_for_all",
]
