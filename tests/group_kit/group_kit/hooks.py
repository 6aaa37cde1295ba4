"""Takes the place of `synicix_core.training.group` in executors, which have imported it when they load plugins."""

import sys

if (group := sys.modules.get("synicix_core.training.group")) is not None:
    from group_kit.in_turn import plan_group, run_group

    group.plan_group, group.run_group = plan_group, run_group
