//! What golibx.stats() and `golibx info` tell.
const std = @import("std");
const netpoll = @import("../../netpoll/netpoll.zig");
const os = @import("../../os/os.zig");
const py = @import("../py.zig");
const host = @import("../host/host.zig");
const recursion = @import("../host/recursion.zig");
const native = @import("native.zig");
const standin = @import("../host/standin.zig");
const preempt = @import("../host/preempt.zig");
const identity = @import("../host/identity.zig");
const datastack = @import("../host/datastack.zig");
const events = @import("events.zig");
const swaps = @import("../host/swap.zig");
const swap_find = @import("../host/swap_find.zig");

const lane = &host.the_lane;

pub fn stats() ?*py.Object {
    const dict = py.PyDict_New() orelse return null;
    const c = &lane.counters;
    const live = lane.live;
    const pool = &lane.stacks;
    const recorded = events.figures();
    const pairs = .{
        .{ "goroutines", if (live) lane.user_count else 0 },
        .{ "threads", if (live) c.threads.load(.monotonic) else 0 },
        .{ "threads_idle", if (live) lane.idle_count.load(.monotonic) else 0 },
        .{ "threads_blocked", if (live) lane.lost_count else 0 },
        .{ "threads_waiting", standin.waitingCount() },
        .{ "switches", c.switches },
        .{ "spawns", c.spawns },
        .{ "preemptions", c.preemptions },
        .{ "preempt_requests", c.preempt_requests.load(.monotonic) },
        .{ "handoffs", c.handoffs },
        .{ "retakes", c.retakes },
        .{ "retakes_in_vain", @atomicLoad(u64, &c.retakes_in_vain, .monotonic) },
        .{ "lock_offers", c.lock_offers },
        .{ "threads_kept", c.threads_kept },
        .{ "threads_not_kept", c.threads_not_kept },
        .{ "threads_awaited", c.threads_awaited.load(.monotonic) },
        .{ "steals", native.steals() },
        .{ "netpolls", c.netpolls },
        .{ "netpoll_wakeups", c.netpoll_wakeups },
        .{ "timers", if (live) lane.timers.len() else 0 },
        .{
            "runq",
            if (live) lane.runnable() else 0,
        },
        .{ "idle", c.idle },
        .{ "tunings", events.tunings },
        .{ "events_recorded", recorded.recorded },
        .{ "events_dropped", recorded.dropped },
        .{ "stacks_total", if (live) pool.in_use + pool.free() else 0 },
        .{ "stacks_free", if (live) pool.free() else 0 },
        .{ "stack_bytes", lane.options.stack_size },
    };
    inline for (pairs) |pair| {
        if (!py.setInt(dict, pair[0], pair[1])) {
            py.decref(dict);
            return null;
        }
    }
    if (!native.addCounters(dict, "native_")) {
        py.decref(dict);
        return null;
    }
    return dict;
}

pub fn info() ?*py.Object {
    const dict = py.PyDict_New() orelse return null;
    const builtin = @import("builtin");
    // Without a run, find out what one would use.
    const idle = !lane.live;
    if (idle) {
        if (!swap_find.find(os.onMainThread())) py.PyErr_Clear();
        preempt.setUp();
        if (!identity.redirectCalls() or !datastack.setUp()) py.PyErr_Clear();
    }
    const left = identity.redirect.refused;
    var left_text: [96]u8 = undefined;
    const way = preempt.way;
    const reason = preempt.reason;
    if (idle) preempt.tearDown();
    const detached = wayToSeeDetached();
    const no_swap = swaps.whyNot(!idle);
    const frames = if (datastack.isKnown()) "on the C stack" else "in chunks of their own";
    var buffer: [32]u8 = undefined;
    const native_way = native.preemptWay(&buffer);
    const ok = setNumberText(dict, "native_gomaxprocs", native.procCount()) and
        setNumberText(dict, "native_stack_bytes", native.stackSize()) and
        py.setText(dict, "native_preempt", native_way.way) and
        py.setText(dict, "native_preempt_reason", native_way.reason) and
        py.setText(dict, "os", @tagName(builtin.os.tag)) and
        py.setText(dict, "arch", @tagName(builtin.cpu.arch)) and
        py.setText(dict, "build", @tagName(builtin.mode)) and
        py.setText(dict, "netpoll", netpoll.name) and
        py.setText(dict, "preempt", @tagName(way)) and
        py.setText(dict, "preempt_reason", reason.ptr) and
        py.setText(dict, "retake", detached) and
        py.setText(dict, "retake_reason", if (std.mem.eql(u8, std.mem.span(detached), "none"))
            "no way found to see a thread state leave the interpreter"
        else
            "") and
        py.setText(dict, "frames", frames) and
        py.setText(dict, "c_identity", if (os.imports.supported) "redirected calls" else "none") and
        py.setText(dict, "c_identity_reason", if (os.imports.supported)
            (if (left == 0) "" else std.fmt.bufPrintSentinel(
                &left_text,
                "except {d}, whose tables could not be written: " ++
                    "they take a goroutine for its thread",
                .{left},
                0,
            ) catch unreachable)
        else
            "C extension modules take a goroutine for its thread on this system") and
        py.setText(dict, "gilstate", wayToSetGilstate()) and
        py.setText(dict, "swap", if (no_swap == null) "by hand" else "interpreter") and
        py.setText(dict, "swap_reason", no_swap orelse "") and
        py.setText(
            dict,
            "c_recursion_limit",
            if (recursion.usable())
                "by the stack's reserve"
            else if (py.extra.PyUnstable_ThreadState_SetStackProtection != null)
                "by the stack's bounds"
            else
                "by the stack's size",
        );
    if (!ok) {
        py.decref(dict);
        return null;
    }
    return dict;
}

fn wayToSetGilstate() [*:0]const u8 {
    if (py.minor() > 11) return "PyThreadState_Swap";
    return if (host.mechanisms.gilstate_slot != null) "thread-specific slot" else "none";
}

fn wayToSeeDetached() [*:0]const u8 {
    if (host.mechanisms.attached_offset != null) return "thread state word";
    const is_told = py.minor() == 11 and py.extra._PyThreadState_UncheckedGet != null;
    return if (is_told) "current thread state" else "none";
}

fn setNumberText(dict: *py.Object, key: [*:0]const u8, number: usize) bool {
    var buffer: [24]u8 = undefined;
    return py.setText(
        dict,
        key,
        std.fmt.bufPrintSentinel(&buffer, "{d}", .{number}, 0) catch unreachable,
    );
}
