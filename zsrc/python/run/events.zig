//! The pump's side of events: those of both lanes, in the order of their times, as Python objects.
//!
//! The rings of the Python lane are the run's; those of the native lane outlive it
//! (parallel/events.zig). Everything here has the interpreter's lock, and only the pump takes
//! events out.
const std = @import("std");
const event = @import("../../event/event.zig");
const merge = @import("../../event/merge.zig");
const g_mod = @import("../../serial/g.zig");
const lane_mod = @import("../../serial/lane.zig");
const latency = @import("../../serial/latency.zig");
const native_lane = @import("../../parallel/lane.zig");
const native_events = @import("../../parallel/events.zig");
const outside = @import("../host/outside.zig");
const py = @import("../py.zig");
const host = @import("../host/host.zig");
const goroutine = @import("../host/goroutine.zig");
const places = @import("places.zig");

const lane = &host.the_lane;
const Merge = merge.Merge;

/// A backlog stays in the rings, where an event takes a tenth of the memory.
const largest_batch = 1024;

const Taken = struct { event: event.Event, origin: event.Origin };

// The pump's, between taking events out and making objects of them.
var batch: [largest_batch]Taken = undefined;
var rings: [2 + native_events.most_rings]*event.Ring = undefined;
var times: [rings.len]u64 = undefined;

/// Texts of panics that were recorded, by the goroutine's number: a dict.
var panics: ?*py.Object = null;

/// Changes of tunables in this run; and those of which there are events to deliver, by their
/// number: a dict.
pub var tunings: u64 = 0;
var changes: ?*py.Object = null;

/// Before a run.
pub fn begin(options: *const lane_mod.Options) void {
    tunings = 0;
    const caller: outside.Caller = .enter();
    defer caller.leave();
    native_events.begin(.{
        .mask = options.event_mask,
        .ring_size = options.hooks_ring_size,
        .notify = notify,
    });
}

/// After it.
pub fn end() void {
    native_events.end();
    py.clear(&panics);
    py.clear(&changes);
    places.clear();
}

fn notify() void {
    lane.postEvents();
}

pub fn figures() native_events.Figures {
    const caller: outside.Caller = .enter();
    defer caller.leave();
    var sum = native_events.counted();
    if (!lane.live) return sum;
    for ([_]*event.Ring{ &lane.ring, &lane.sysmon_ring }) |ring| {
        sum.recorded += ring.head.load(.monotonic);
        sum.dropped += @atomicLoad(u64, &ring.dropped, .monotonic);
    }
    return sum;
}

pub fn setMask(value: i64) void {
    const wanted: u32 = @truncate(@as(u64, @bitCast(value)));
    lane.ring.setMask(wanted | (lane.ring.wanted & event.latency_bit));
    native_events.setMask(wanted);
}

/// measure_latency()
pub fn measureLatency() void {
    lane.ring.setMask(lane.ring.wanted | event.latency_bit);
}

pub fn wait() ?*py.Object {
    const p = goroutine.forPark() orelse return null;
    var n = take();
    while (n == 0) {
        // The P may have been taken in the switch that woke it; getting it back lets others run.
        _ = lane.here();
        n = take();
        if (n > 0) break;
        if (lane.events_stopped) return py.returnNone();
        lane.prepare(&p.g);
        lane.events_note = &p.g;
        // Some were not to be had yet, or have lost their notice to this look.
        if (left) lane.flushSoon();
        const wake = lane.park(&p.g, .events, null);
        if (lane.events_note == &p.g) lane.events_note = null;
        if (wake == .interrupted) {
            _ = goroutine.raisePending(p);
            return null;
        }
        n = take();
    }
    return listOf(batch[0..n]);
}

/// Whether events are in the rings after `take` has found none.
var left = false;

/// Takes what happened up to now into `batch`; how many there are.
fn take() usize {
    native_lane.procs_lock.lock();
    defer native_lane.procs_lock.unlock();
    rings[0] = &lane.ring;
    var count: usize = 1;
    if (lane.sysmon_ring.events.len > 0) {
        rings[1] = &lane.sysmon_ring;
        count = 2;
    }
    const native_from = count;
    var natives: native_events.Rings = .{};
    while (natives.next()) |ring| {
        rings[count] = ring;
        count += 1;
    }
    const all = rings[0..count];
    var n: usize = 0;
    var merging = if (lane.events_stopped) Merge.beginLast(all, &times) else Merge.begin(
        all,
        &times,
    ) orelse {
        left = true;
        return 0;
    };
    while (n < largest_batch) {
        const taken = merging.next() orelse break;
        batch[n] = .{
            .event = taken.event,
            .origin = if (taken.ring < native_from) .python else .native,
        };
        n += 1;
    }
    left = for (all) |ring| {
        if (ring.nextTime() != null) break true;
    } else false;
    return n;
}

fn listOf(taken: []const Taken) ?*py.Object {
    const list = py.PyList_New(0) orelse return null;
    for (taken) |*each| {
        const tuple = tupleOf(each);
        if (tuple == null or py.PyList_Append(list, tuple.?) != 0) {
            py.xdecref(tuple);
            py.decref(list);
            return null;
        }
        py.decref(tuple.?);
    }
    return list;
}

fn tupleOf(taken: *const Taken) ?*py.Object {
    const e = &taken.event;
    const tuple = py.PyTuple_New(6) orelse return null;
    const items = [_]?*py.Object{
        number(@backingInt(e.kind)),
        number(e.time_ns),
        number(e.goroutine),
        number(e.a),
        switch (e.kind) {
            .goroutine_park => reasonText(e.b),
            .goroutine_panic => takePanic(e.goroutine),
            .tune => takeTuning(e.a),
            .goroutine_block => places.take(e.b),
            else => number(e.b),
        },
        number(@backingInt(taken.origin)),
    };
    var complete = true;
    for (items, 0..) |item, i| {
        if (item) |o| _ = py.PyTuple_SetItem(tuple, @intCast(i), o) else complete = false;
    }
    if (complete) return tuple;
    py.decref(tuple);
    return null;
}

fn number(value: u64) ?*py.Object {
    return py.PyLong_FromUnsignedLongLong(value);
}

fn reasonText(code: u32) ?*py.Object {
    const reason: g_mod.WaitReason = @fromBackingInt(@intCast(code));
    return py.PyUnicode_InternFromString(reason.text());
}

/// record_panic(goroutine_id, text, /)
pub fn recordPanic(goroutine_id: *py.Object, text: *py.Object) ?bool {
    const id = py.PyLong_AsUnsignedLongLong(goroutine_id);
    if (id == std.math.maxInt(c_ulonglong) and py.PyErr_Occurred() != null) return null;
    if (!lane.live or !lane.ring.wants(.goroutine_panic)) return false;
    if (panics == null) panics = py.PyDict_New() orelse return null;
    // First, since the pump may be quick; and it stays if the event is dropped.
    if (py.PyDict_SetItem(panics.?, goroutine_id, text) != 0) return null;
    const recorded = lane.recordSlow(.goroutine_panic, id, 0, 0);
    if (!recorded and py.PyDict_DelItem(panics.?, goroutine_id) != 0) return null;
    return recorded;
}

/// record_tune(change, /). Any thread.
pub fn recordTune(change: *py.Object) ?bool {
    tunings += 1;
    if (!lane.live or !lane.ring.wants(.tune)) return false;
    if (changes == null) changes = py.PyDict_New() orelse return null;
    const key = number(tunings) orelse return null;
    defer py.decref(key);
    if (py.PyDict_SetItem(changes.?, key, change) != 0) return null;
    const recorded = lane.recordSlow(.tune, 0, tunings, 0);
    if (!recorded) return if (py.PyDict_DelItem(changes.?, key) == 0) false else null;
    // A thread's is not seen by an M that waits in the poller.
    lane.postEvents();
    return true;
}

fn takeTuning(which: u64) ?*py.Object {
    const key = number(which) orelse return null;
    defer py.decref(key);
    const change = py.incref(py.PyDict_GetItemWithError(changes.?, key) orelse return null);
    if (py.PyDict_DelItem(changes.?, key) == 0) return change;
    py.decref(change);
    return null;
}

/// latencies()
pub fn latencies() ?*py.Object {
    const dict = py.PyDict_New() orelse return null;
    for (lane.latency.counts, 0..) |count, i| {
        if (count == 0) continue;
        const longest = number(latency.longestOf(i));
        const counted = number(count);
        const complete = longest != null and counted != null and
            py.PyDict_SetItem(dict, longest.?, counted.?) == 0;
        py.xdecref(longest);
        py.xdecref(counted);
        if (complete) continue;
        py.decref(dict);
        return null;
    }
    return dict;
}

fn takePanic(id: u64) ?*py.Object {
    const key = number(id) orelse return null;
    defer py.decref(key);
    const dict = panics orelse return py.PyUnicode_FromString("");
    const text = py.incref(py.PyDict_GetItemWithError(dict, key) orelse
        return if (py.PyErr_Occurred() == null) py.PyUnicode_FromString("") else null);
    if (py.PyDict_DelItem(dict, key) == 0) return text;
    py.decref(text);
    return null;
}

pub fn stop() void {
    // Nothing more comes from the native lane, or what does is thrown away.
    native_events.end();
    lane.stopEvents();
}
