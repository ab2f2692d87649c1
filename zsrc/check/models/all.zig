//! Every model, how far it is explored, and the bugs that it has to find.
const check = @import("../explorer.zig");
const self = @import("self.zig");
const runq = @import("runq.zig");
const event = @import("event.zig");
const proc = @import("proc.zig");
const procs = @import("procs.zig");
const net = @import("net.zig");
const chan = @import("chan.zig");
const pollside = @import("pollside.zig");
const sync = @import("sync.zig");
const timers = @import("timers.zig");
const tied = @import("tied.zig");
const limit = @import("limit.zig");
const holdoff = @import("holdoff.zig");
const resting = @import("resting.zig");
const succession = @import("succession.zig");
const sysmon = @import("sysmon.zig");
const inbox = @import("inbox.zig");
const ranks = @import("ranks.zig");
const stop = @import("stop.zig");
const run_end = @import("ending.zig");
const primitives = @import("primitives.zig");
const resize = @import("resize.zig");

pub const Entry = struct {
    name: []const u8,
    Model: fn (comptime Sim: type) type,
    options: check.Options = .{},
    plants: []const Plant = &.{},
};

pub const Plant = struct {
    bug: @EnumLiteral(),
    /// A part of the failure's message.
    expects: []const u8,
    /// Where it takes more than the model is explored with.
    preemptions: ?u32 = null,
};

/// Stores seen late and spurious failures beside the preemptions.
const unusual: check.Options = .{ .preemptions = 2, .delays = 1, .weak_failures = 1 };
const deep: check.Options = .{ .preemptions = 6, .delays = 1 };

/// With a sysmon that looks again and again.
const patient: check.Options = .{ .patient = true, .max_steps = 3000 };
const resizing: check.Options = .{ .preemptions = 1, .random_runs = 20_000 };
const hogs: check.Options = .{ .preemptions = 3, .patient = true, .max_steps = 3000 };
const run_ending: check.Options = .{ .preemptions = 1, .random_runs = 20_000, .max_steps = 3000 };
const run_ending_often: check.Options = .{
    .preemptions = 1,
    .random_runs = 200_000,
    .max_steps = 3000,
};
const run_ending_twice: check.Options = .{
    .preemptions = 2,
    .random_runs = 20_000,
    .max_steps = 3000,
};
const succeeding: check.Options = .{ .preemptions = 2, .patient = true, .max_steps = 3000 };
const at_rest: check.Options = .{ .preemptions = 2, .delays = 1, .patient = true };
const at_rest_or_not: check.Options = .{ .preemptions = 1, .patient = true, .random_runs = 20_000 };
const ending: check.Options = .{ .preemptions = 1, .patient = true, .max_steps = 3000 };

/// The explorer itself.
pub const of_the_explorer = [_]Entry{
    .{
        .name = "peterson",
        .Model = self.Peterson,
        .options = .{ .preemptions = 3, .delays = 2 },
        .plants = &.{
            .{ .bug = .no_turn, .expects = "inside once" },
            .{ .bug = .buffered_stores, .expects = "two are inside" },
        },
    },
    .{
        .name = "flag lock",
        .Model = self.FlagLock,
        .options = .{ .weak_failures = 1 },
        .plants = &.{
            .{ .bug = .look_then_set, .expects = "no ordering separates" },
            .{ .bug = .opens_relaxed, .expects = "no ordering separates" },
        },
    },
    .{
        .name = "note",
        .Model = self.NoteHandoff,
        .options = .{ .preemptions = 4 },
        .plants = &.{
            .{ .bug = .clear_after_look, .expects = "lost wake-up or deadlock" },
            .{ .bug = .time_out, .expects = "woken in time" },
        },
    },
    .{
        .name = "two locks",
        .Model = self.TwoLocks,
        .options = .{ .delays = 1 },
        .plants = &.{
            .{ .bug = .crossed, .expects = "lost wake-up or deadlock" },
        },
    },
    .{
        .name = "parking",
        .Model = self.Parking,
        .options = .{ .preemptions = 4 },
        .plants = &.{
            .{ .bug = .always_parks, .expects = "lost wake-up or deadlock" },
            .{ .bug = .late_is_wrong, .expects = "it is early" },
        },
    },
};

/// Of golibx.
pub const of_the_runtime = [_]Entry{
    .{
        .name = "runq steal",
        .Model = runq.Steal,
        .options = .{ .preemptions = 3 },
        .plants = &.{
            .{ .bug = .tail_before_slot, .expects = "panic" },
            .{ .bug = .push_relaxed, .expects = "no ordering separates" },
            .{ .bug = .pop_without_cas, .expects = "runs twice" },
            .{ .bug = .steal_without_cas, .expects = "runs twice" },
            .{ .bug = .steal_publishes_its_own, .expects = "runs twice" },
        },
    },
    .{ .name = "runq steal, buffered", .Model = runq.Steal, .options = unusual },
    .{
        .name = "runq overflow",
        .Model = runq.Overflow,
        .options = .{ .preemptions = 4 },
        .plants = &.{
            .{ .bug = .steal_without_cas, .expects = "" },
            .{ .bug = .push_relaxed, .expects = "no ordering separates" },
        },
    },
    .{ .name = "runq overflow, buffered", .Model = runq.Overflow, .options = unusual },
    .{
        .name = "runq empty",
        .Model = runq.Empty,
        .options = .{ .preemptions = 6 },
        .plants = &.{
            .{ .bug = .empty_unchecked, .expects = "looks empty" },
        },
    },
    .{
        .name = "global queue",
        .Model = runq.Global,
        .options = deep,
        .plants = &.{
            .{ .bug = .unlocked, .expects = "no ordering separates" },
        },
    },
    .{
        .name = "event ring",
        .Model = event.Ring,
        .options = .{ .preemptions = 5, .delays = 1 },
        .plants = &.{
            .{ .bug = .head_before_slot, .expects = "no ordering separates" },
            .{ .bug = .head_relaxed, .expects = "no ordering separates" },
            .{ .bug = .never_full, .expects = "" },
        },
    },
    .{
        .name = "event ring, locked",
        .Model = event.Locked,
        .options = .{ .preemptions = 4, .delays = 1 },
        .plants = &.{.{ .bug = .unlocked, .expects = "no ordering separates" }},
    },
    .{
        .name = "event ring, wake-up",
        .Model = event.Wakeup,
        .options = .{ .preemptions = 4, .delays = 1 },
        .plants = &.{.{ .bug = .tail_read_before, .expects = "lost wake-up" }},
    },
    .{
        .name = "forks beside sysmon",
        .Model = holdoff.Forks,
        .options = .{ .preemptions = 2, .delays = 2 },
        .plants = &.{
            .{ .bug = .looks_first, .expects = "half changed" },
            .{ .bug = .acts_late, .expects = "half changed" },
            .{ .bug = .does_not_wait, .expects = "half changed" },
            .{ .bug = .lets_all_go, .expects = "half changed" },
        },
    },
    .{
        .name = "inbox",
        .Model = inbox.Idle,
        .options = .{
            .preemptions = 2,
            .delays = 1,
            .max_executions = 10_000_000,
            .max_seconds = 90,
        },
        .plants = &.{
            .{ .bug = .looks_first, .expects = "lost wake-up" },
            .{ .bug = .looks_early, .expects = "lost wake-up" },
            .{ .bug = .pushes_relaxed, .expects = "no ordering separates" },
            .{ .bug = .uses_arrived, .expects = "no ordering separates" },
            .{ .bug = .rings_unlocked, .expects = "no ordering separates" },
            .{ .bug = .rings_unasked, .expects = "no ordering separates" },
            .{ .bug = .stays_asleep, .expects = "no ordering separates" },
        },
    },
    .{
        .name = "inbox of a lane that is busy",
        .Model = inbox.Busy,
        .options = .{ .preemptions = 2, .delays = 1, .weak_failures = 1 },
        .plants = &.{
            .{ .bug = .attention_first, .expects = "" },
            .{ .bug = .clears_late, .expects = "" },
        },
    },
    .{
        .name = "priorities",
        .Model = ranks.Waits,
        .options = .{ .preemptions = 1, .random_runs = 20_000 },
        .plants = &.{
            .{ .bug = .never_others, .expects = "waits for its turn too long" },
            .{ .bug = .low_never_joins, .expects = "waits for its turn too long" },
            .{ .bug = .forgets, .expects = "waits for its turn too long" },
        },
    },
    .{
        .name = "sysmon asleep",
        .Model = sysmon.Sleeps,
        .options = .{ .preemptions = 2, .delays = 1, .patient = true },
        .plants = &.{
            .{ .bug = .waits_late, .expects = "lost wake-up", .preemptions = 3 },
            .{ .bug = .owns_late, .expects = "lost wake-up" },
            .{ .bug = .sleeps_blindly, .expects = "lost wake-up" },
            .{ .bug = .stops_unseen, .expects = "lost wake-up" },
        },
    },
    .{
        .name = "sysmon told of a change",
        .Model = sysmon.Told,
        .options = .{ .preemptions = 2, .delays = 1, .patient = true },
        .plants = &.{
            .{ .bug = .tells_first, .expects = "lost wake-up" },
            .{ .bug = .clears_late, .expects = "lost wake-up" },
        },
    },
    .{
        .name = "event rings, order",
        .Model = event.Order,
        .options = .{ .preemptions = 3 },
        .plants = &.{.{ .bug = .clock_before_writing, .expects = "after a later one" }},
    },
    .{
        .name = "mutex",
        .Model = sync.Mutex,
        .options = .{ .preemptions = 3 },
        .plants = &.{
            .{ .bug = .queue_unannounced, .expects = "lost wake-up" },
            .{ .bug = .others_forgotten, .expects = "lost wake-up" },
            .{ .bug = .stays_woken, .expects = "it is open" },
        },
    },
    .{
        .name = "mutex, left",
        .Model = sync.MutexLeft,
        .options = .{ .preemptions = 3 },
        .plants = &.{.{ .bug = .woken_unseen, .expects = "lost wake-up" }},
    },
    .{
        .name = "mutex, handed over",
        .Model = sync.MutexLate,
        .options = .{ .preemptions = 3 },
        .plants = &.{.{ .bug = .open_when_handed_over, .expects = "" }},
    },
    .{ .name = "park and ready", .Model = sync.Park, .options = .{ .preemptions = 4 } },
    .{
        .name = "park with a deadline",
        .Model = sync.ParkUntil,
        .options = .{ .preemptions = 4 },
        .plants = &.{
            .{ .bug = .late_wakeup_lost, .expects = "lost wake-up" },
            .{ .bug = .claim_without_cas, .expects = "" },
        },
    },
    .{
        .name = "descriptor edges",
        .Model = pollside.Edges,
        .options = .{ .preemptions = 3 },
        .plants = &.{.{ .bug = .edge_forgotten, .expects = "lost wake-up" }},
    },
    .{
        .name = "descriptor close",
        .Model = pollside.Close,
        .options = .{ .preemptions = 3 },
        .plants = &.{
            .{ .bug = .stale_edge, .expects = "an edge of the old file" },
            .{ .bug = .close_wakes_nobody, .expects = "lost wake-up" },
        },
    },
    .{ .name = "descriptor close, deadline", .Model = pollside.CloseUntil },
    .{
        .name = "descriptor reuse, two close it",
        .Model = pollside.Reuse,
        .options = .{ .preemptions = 3 },
        .plants = &.{
            .{ .bug = .drain_skipped, .expects = "a new handle is open" },
            .{ .bug = .closed_unseen, .expects = "" },
            .{ .bug = .generation_kept, .expects = "a stranger's file" },
            .{ .bug = .close_unseen_by_waiter, .expects = "lost wake-up" },
        },
    },
    .{
        .name = "descriptor reuse, both directions",
        .Model = pollside.ReuseTwo,
        .options = .{ .preemptions = 3, .delays = 1 },
        .plants = &.{
            .{ .bug = .drain_skipped, .expects = "a new handle is open" },
            .{ .bug = .closed_unseen, .expects = "" },
            .{ .bug = .generation_kept, .expects = "a stranger's file" },
            .{ .bug = .close_wakes_nobody, .expects = "lost wake-up" },
        },
    },
    .{
        .name = "descriptor handles",
        .Model = pollside.Handles,
        .plants = &.{.{ .bug = .given_back_unlocked, .expects = "" }},
    },
    .{
        .name = "descriptor shared",
        .Model = pollside.Share,
        .options = .{ .preemptions = 3 },
        .plants = &.{
            .{ .bug = .mark_not_taken, .expects = "lost wake-up" },
            .{ .bug = .not_passed_on, .expects = "lost wake-up" },
        },
    },
    .{
        .name = "descriptor shared, close",
        .Model = pollside.ShareClose,
        .options = .{ .preemptions = 3 },
        .plants = &.{.{ .bug = .close_wakes_one, .expects = "lost wake-up" }},
    },
    .{
        .name = "timers",
        .Model = timers.Deadline,
        .options = .{ .preemptions = 3 },
        .plants = &.{
            .{ .bug = .freed_before_fire, .expects = "no ordering separates" },
            .{ .bug = .removes_blindly, .expects = "" },
        },
    },
    .{
        .name = "timers, two and a thief",
        .Model = timers.TwoDeadlines,
        .options = .{ .preemptions = 0, .random_runs = 20_000 },
    },
    .{ .name = "chan, unbuffered", .Model = chan.Unbuffered, .options = .{ .preemptions = 3 } },
    .{ .name = "chan, buffered", .Model = chan.Buffered, .options = .{ .preemptions = 3 } },
    .{
        .name = "chan, close and deadlines",
        .Model = chan.EndsUnbuffered,
        .options = .{ .preemptions = 3 },
        .plants = &.{
            .{ .bug = .claim_without_cas, .expects = "" },
        },
    },
    .{
        .name = "chan, close and deadlines, given up",
        .Model = chan.EndsGivenUp,
        .options = .{ .preemptions = 3 },
        .plants = &.{.{ .bug = .close_leaves_senders, .expects = "lost wake-up" }},
    },
    .{
        .name = "chan, close and deadlines, buffered",
        .Model = chan.EndsBuffered,
        .options = .{ .preemptions = 3 },
    },
    .{
        .name = "select, crossed",
        .Model = chan.SelectCrossed,
        .options = .{ .preemptions = 3 },
        .plants = &.{
            .{ .bug = .locks_as_given, .expects = "lost wake-up or deadlock" },
            .{ .bug = .stays_queued, .expects = "" },
        },
    },
    .{
        .name = "select, deadlines, a channel twice",
        .Model = chan.SelectDeadline,
        .plants = &.{.{ .bug = .claim_without_cas, .expects = "" }},
    },
    .{
        .name = "select, close",
        .Model = chan.SelectClose,
        .options = .{ .preemptions = 3 },
    },
    .{
        .name = "select, both lanes",
        .Model = chan.SelectMixed,
        .options = .{ .preemptions = 3 },
        .plants = &.{.{ .bug = .nobody_passes_by, .expects = "" }},
    },
    .{ .name = "proc spawn, 2 Ps", .Model = proc.SpawnOne, .options = .{ .preemptions = 3 } },
    .{ .name = "proc spawn, 2 children", .Model = proc.SpawnTwo, .options = .{ .preemptions = 3 } },
    .{
        .name = "proc spawn, 3 Ps",
        .Model = proc.SpawnThree,
        .options = .{ .preemptions = 2 },
        .plants = &.{.{ .bug = .last_spinner_forgotten, .expects = "lost wake-up" }},
    },
    .{ .name = "proc spawn, 4 Ps", .Model = proc.SpawnMany, .options = .{ .preemptions = 1 } },
    .{
        .name = "proc late, spinning",
        .Model = proc.LateSpinning,
        .options = .{ .preemptions = 2 },
        .plants = &.{.{ .bug = .no_recheck, .expects = "lost wake-up" }},
    },
    .{
        .name = "proc late, spinning, buffered",
        .Model = proc.LateSpinning,
        .options = .{ .preemptions = 2, .delays = 1, .max_seconds = 60 },
        .plants = &.{.{ .bug = .wakep_without_barrier, .expects = "lost wake-up" }},
    },
    .{
        .name = "proc late, ending",
        .Model = proc.LateEnding,
        .options = .{ .preemptions = 2 },
        .plants = &.{.{ .bug = .no_needspinning, .expects = "lost wake-up" }},
    },
    .{ .name = "proc foreign, idle", .Model = proc.ForeignIdle, .options = .{ .max_seconds = 60 } },
    .{ .name = "proc foreign, 1 P", .Model = proc.ForeignOne, .options = .{ .preemptions = 2 } },
    .{
        .name = "proc foreign, busy",
        .Model = proc.ForeignBusy,
        .options = .{ .max_seconds = 60 },
        .plants = &.{.{ .bug = .idle_skipped, .expects = "livelock" }},
    },
    .{
        .name = "proc network, 1 P",
        .Model = net.ArriveOne,
        .plants = &.{
            .{ .bug = .poller_stays, .expects = "in the poller" },
            .{ .bug = .polled_dropped, .expects = "lost wake-up" },
        },
    },
    .{
        .name = "proc network, 2 Ps",
        .Model = net.ArriveTwo,
        .plants = &.{.{ .bug = .poller_stays, .expects = "in the poller" }},
    },
    .{
        .name = "proc network, first descriptor",
        .Model = net.First,
        .plants = &.{.{ .bug = .poll_unannounced, .expects = "lost wake-up" }},
    },
    .{
        .name = "proc network, timer of a thread",
        .Model = net.TimerOfThread,
        .options = .{ .preemptions = 1, .delays = 1 },
        .plants = &.{.{ .bug = .poller_unbroken, .expects = "lost wake-up" }},
    },
    .{
        .name = "proc network, timer beside a hog",
        .Model = net.TimerBesideHog,
        .plants = &.{.{ .bug = .poller_unbroken, .expects = "lost wake-up" }},
    },
    .{
        .name = "proc network, timer of the only P",
        .Model = net.TimerOnlyP,
        .plants = &.{.{ .bug = .stops_unnoticed, .expects = "lost wake-up" }},
    },
    .{ .name = "proc syscall, 1 P, long", .Model = procs.SyscallOne },
    .{
        .name = "proc syscall, 1 P, short",
        .Model = procs.SyscallShort,
        .plants = &.{.{ .bug = .retake_without_cas, .expects = "" }},
    },
    .{
        .name = "proc syscall, 2 Ps",
        .Model = procs.SyscallTwo,
        .plants = &.{.{ .bug = .retake_without_cas, .expects = "" }},
    },
    .{
        .name = "proc shrink",
        .Model = procs.Shrink,
        .plants = &.{.{ .bug = .shrunk_unseen, .expects = "livelock" }},
    },
    .{ .name = "proc shrink and grow", .Model = procs.ShrinkAndGrow },
    .{
        .name = "proc park",
        .Model = procs.Park,
        .plants = &.{.{ .bug = .commit_before_switch, .expects = "" }},
    },
    .{
        .name = "proc park with a deadline",
        .Model = procs.ParkUntil,
        .plants = &.{.{ .bug = .freed_before_fire, .expects = "" }},
    },
};

/// Of golibx's native lane as a whole: goroutines with stacks, switched by the library's code.
pub const of_the_lane = [_]Entry{
    .{
        .name = "lane locked thread, 2 Ps",
        .Model = tied.LockedEnds,
        .plants = &.{
            .{ .bug = .runs_anywhere, .expects = "changes threads" },
            .{ .bug = .waits_with_its_p, .expects = "" },
            .{ .bug = .wakes_before_it_gives, .expects = "" },
        },
    },
    .{ .name = "lane locked thread, unlocking", .Model = tied.LockedUnlocks },
    .{
        .name = "lane locked thread, 1 P",
        .Model = tied.LockedOne,
        .options = .{ .preemptions = 4 },
        .plants = &.{.{ .bug = .next_while_locked, .expects = "" }},
    },
    .{ .name = "lane hogs, signal-yield", .Model = tied.HogsYield, .options = hogs },
    .{
        .name = "lane hogs, KLT-switch, 1 spare",
        .Model = tied.HogsOneSpare,
        .options = hogs,
        .plants = &.{
            .{ .bug = .tied_is_no_heir, .expects = "livelock" },
            .{ .bug = .stays_tied, .expects = "stays tied" },
        },
    },
    .{ .name = "lane hogs, KLT-switch, 2 spares", .Model = tied.HogsTwoSpares, .options = patient },
    .{ .name = "lane hogs, KLT-switch, locked", .Model = tied.HogsLocked, .options = hogs },
    .{
        .name = "lane stopped with a lock",
        .Model = tied.StoppedWithLock,
        .options = patient,
        .plants = &.{.{ .bug = .thread_before_tied, .expects = "" }},
    },
    .{
        .name = "lane stopped beside an idle P",
        .Model = tied.StoppedBesideIdle,
        .options = .{ .preemptions = 1, .random_runs = 20_000 },
    },
    .{
        .name = "lane max_threads, about to stop",
        .Model = limit.AboutToStop,
        .plants = &.{.{ .bug = .stopm_forgets_refused, .expects = "lost wake-up" }},
    },
    .{
        .name = "lane max_threads, a thread ends",
        .Model = limit.LockedEnds,
        .plants = &.{.{ .bug = .ending_forgets_refused, .expects = "lost wake-up" }},
    },
    .{
        .name = "lane max_threads, one has rested",
        .Model = limit.Rested,
        .options = .{ .preemptions = 1 },
        .plants = &.{.{ .bug = .ending_forgets_refused, .expects = "" }},
    },
    .{
        .name = "lane max_threads, one polls",
        .Model = limit.Polls,
        .options = .{ .preemptions = 1, .random_runs = 20_000 },
        .plants = &.{
            .{ .bug = .poller_not_asked, .expects = "lost wake-up" },
            .{ .bug = .polls_unasked, .expects = "lost wake-up", .preemptions = 2 },
        },
    },
    .{
        .name = "lane a thread refused",
        .Model = limit.Refused,
        .plants = &.{.{ .bug = .failure_asks_nobody, .expects = "lost wake-up" }},
    },
    .{
        .name = "lane the only thread refused",
        .Model = limit.RefusedLast,
        .options = patient,
        .plants = &.{.{ .bug = .refused_for_good, .expects = "lost wake-up" }},
    },
    .{ .name = "lane stop, ending", .Model = stop.Ending, .options = ending },
    .{
        .name = "lane stop, resting",
        .Model = stop.Resting,
        .options = ending,
        .plants = &.{.{ .bug = .rests_at_the_end, .expects = "" }},
    },
    .{
        .name = "lane stop, polling",
        .Model = stop.Polling,
        .options = ending,
        .plants = &.{.{ .bug = .poller_sleeps_on, .expects = "" }},
    },
    .{ .name = "lane stop, locked", .Model = stop.Locked, .options = ending },
    .{
        .name = "run's end, switching",
        .Model = run_end.Switches,
        .options = run_ending,
        .plants = &.{
            .{ .bug = .mid_switch_is_settled, .expects = "a stray is in the middle" },
            .{ .bug = .generation_early, .expects = "of another run is queued" },
            .{ .bug = .wakes_unlocked, .expects = "" },
        },
    },
    .{
        .name = "run's end, blocking",
        .Model = run_end.Blocks,
        .options = run_ending_twice,
        .plants = &.{
            .{ .bug = .generation_stays, .expects = "a stray touches the lane" },
            .{ .bug = .stray_stays_listed, .expects = "an M is listed" },
            .{ .bug = .stray_signs_off, .expects = "is used that is gone" },
            .{ .bug = .wakes_unlocked, .expects = "" },
        },
    },
    .{
        .name = "run's end, without the P",
        .Model = run_end.Loses,
        .options = run_ending_twice,
        .plants = &.{
            .{ .bug = .generation_early, .expects = "of another run is queued" },
            .{ .bug = .generation_stays, .expects = "a stray touches the lane" },
            .{ .bug = .stray_stays_listed, .expects = "an M is listed" },
            .{ .bug = .stray_signs_off, .expects = "is used that is gone" },
        },
    },
    .{
        .name = "the last thread comes home",
        .Model = run_end.Wakes,
        .options = run_ending,
        .plants = &.{.{ .bug = .owes_nothing, .expects = "lost wake-up" }},
    },
    .{
        .name = "run's end, many after the lock",
        .Model = run_end.Reserves,
        .options = run_ending_often,
        .plants = &.{
            .{ .bug = .counts_the_refused, .expects = "the count of reserves" },
            .{ .bug = .comes_too_late_uncounted, .expects = "the count of reserves" },
        },
    },
    .{
        .name = "run's end, at rest",
        .Model = run_end.Rests,
        .options = run_ending,
        .plants = &.{
            .{ .bug = .sysmon_goes_on, .expects = "lost wake-up" },
            .{ .bug = .wakes_unlocked, .expects = "" },
        },
    },
    .{
        .name = "successor, locked",
        .Model = succession.LockedEnds,
        .options = succeeding,
        .plants = &.{
            .{ .bug = .releases_only, .expects = "lost wake-up" },
            .{ .bug = .others_unawaited, .expects = "that is gone" },
        },
    },
    .{
        .name = "successor, kept",
        .Model = succession.Kept,
        .options = succeeding,
        .plants = &.{
            .{ .bug = .due_late, .expects = "that is gone" },
            .{ .bug = .due_early, .expects = "that is gone" },
            .{ .bug = .others_unawaited, .expects = "that is gone" },
        },
    },
    .{
        .name = "successor, kept main thread",
        .Model = succession.KeptMain,
        .options = succeeding,
        .plants = &.{.{ .bug = .others_unawaited, .expects = "that is gone" }},
    },
    .{
        .name = "successor, in turn",
        .Model = succession.InTurn,
        .options = succeeding,
        .plants = &.{
            .{ .bug = .due_late, .expects = "that is gone" },
            .{ .bug = .heir_forgotten, .expects = "" },
        },
    },
    .{
        .name = "rest between runs",
        .Model = resting.Alike,
        .options = at_rest,
        .plants = &.{
            .{ .bug = .rests_in_a_round, .expects = "" },
            .{ .bug = .begins_in_a_round, .expects = "no ordering separates" },
            .{ .bug = .looks_at_rest, .expects = "sysmon looks at a lane that is at rest" },
            .{ .bug = .owns_late, .expects = "lost wake-up" },
        },
    },
    .{
        .name = "rest between some runs",
        .Model = resting.Mixed,
        .options = at_rest_or_not,
        .plants = &.{.{ .bug = .stops_unseen, .expects = "lost wake-up" }},
    },
    .{
        .name = "rest after an errand",
        .Model = resting.Sent,
        .options = at_rest_or_not,
        .plants = &.{.{ .bug = .clean_before, .expects = "" }},
    },
    .{
        .name = "lane sysmon asleep",
        .Model = stop.SysmonAsleep,
        .options = patient,
        .plants = &.{.{ .bug = .idle_unlocked, .expects = "" }},
    },
    .{
        .name = "lane cond, patient thread",
        .Model = primitives.CondThread,
        .plants = &.{.{ .bug = .serves_the_late, .expects = "" }},
    },
    .{ .name = "lane cond, patient goroutine", .Model = primitives.CondGoroutine },
    .{
        .name = "lane cond, once",
        .Model = primitives.CondOnce,
        .plants = &.{.{ .bug = .unlocks_before_it_queues, .expects = "lost wake-up" }},
    },
    .{ .name = "lane waitgroup", .Model = primitives.WaitGroup },
    .{
        .name = "lane waitgroup, reused",
        .Model = primitives.WaitGroupReused,
        .options = .{ .preemptions = 1, .random_runs = 10_000 },
        .plants = &.{.{ .bug = .unlocks_after_it_wakes, .expects = "somebody writes" }},
    },
    .{
        .name = "lane semaphore",
        .Model = primitives.Semaphore,
        .plants = &.{
            .{ .bug = .serves_the_late, .expects = "" },
            .{ .bug = .claim_without_cas, .expects = "" },
        },
    },
    .{
        .name = "lane timers, shrink",
        .Model = resize.Shrink,
        .options = resizing,
        .plants = &.{
            .{ .bug = .dead_timers_left, .expects = "" },
            .{ .bug = .dead_timers_untold, .expects = "" },
            .{ .bug = .died_meanwhile, .expects = "lost wake-up" },
            .{ .bug = .only_its_own_timers, .expects = "lost wake-up" },
        },
    },
    .{ .name = "lane timers, grow", .Model = resize.Grow, .options = resizing },
    .{ .name = "lane timers, shrink and grow", .Model = resize.ShrinkAndGrow, .options = resizing },
};
