//! The pump's side of events: those of both lanes, in the order of their times, as Python objects.
//!
//! The rings of the Python lane are the run's; those of the native lane outlive it
//! (parallel/events.zig). Everything here has the interpreter's lock, and only the pump takes
//! events out.
const std = @import("std");
const event = @import("../../event/event.zig");
const merge = @import("../../event/merge.zig");
const clock_mod = @import("../../event/clock.zig");
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

const largest_batch = 4096;
/// Of events that are made objects: a backlog stays in the rings, where one takes a tenth of the
/// memory.
const largest_of_objects = 1024;

// The pump's, between taking events out and making objects of them.
var batch: [largest_batch]event.Event = undefined;
var clock: clock_mod.Clock = .unset;
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
    clock = .begin();
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

/// events_wait(single, batched, /)
pub fn wait(single: i64, batched: i64) ?*py.Object {
    const p = goroutine.forPark() orelse return null;
    const wanted: Wanted = .{ .single = bits(single), .batched = bits(batched) };
    var n = take(wanted);
    while (n == 0) {
        // The P may have been taken in the switch that woke it; getting it back lets others run.
        _ = lane.here();
        n = take(wanted);
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
        n = take(wanted);
    }
    return tell(batch[0..n], wanted);
}

fn bits(mask: i64) u32 {
    return @truncate(@as(u64, @bitCast(mask)));
}

/// The kinds of which each event is an object of its own, and those that come as bytes.
const Wanted = struct {
    single: u32,
    batched: u32,

    fn isSingle(w: Wanted, e: *const event.Event) bool {
        return w.single & e.kind.bit() != 0;
    }

    fn isBatched(w: Wanted, e: *const event.Event) bool {
        return w.batched & e.kind.bit() != 0;
    }
};

/// Whether events are in the rings after `take` has found none.
var left = false;

/// Takes what happened up to now into `batch`; how many there are.
fn take(wanted: Wanted) usize {
    const most: usize = if (wanted.single == 0) batch.len else largest_of_objects;
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
    const takes_all = lane.events_stopped or clock.hasRestarted();
    var merging = if (takes_all) Merge.beginLast(all, &times) else Merge.begin(all, &times) orelse {
        left = true;
        return 0;
    };
    clock.advance();
    const is_short = while (n < most) {
        const taken = merging.next(batch[n..most]) orelse break false;
        if (taken.ring >= native_from) {
            for (taken.events) |*e| e.origin = .native;
        }
        n += taken.events.len;
    } else true;
    clock.convert(batch[0..n], if (is_short) null else merging.limit);
    left = for (all) |ring| {
        if (ring.nextTime() != null) break true;
    } else false;
    return n;
}

/// The events as (a list of tuples, bytes, a list of the objects that the bytes refer to).
fn tell(taken: []const event.Event, wanted: Wanted) ?*py.Object {
    const singles = py.PyList_New(0);
    const objects = py.PyList_New(0);
    const data = bytesFor(taken, wanted);
    if (singles != null and objects != null and data != null and
        fill(taken, wanted, singles.?, objects.?, records(data.?)))
    {
        if (py.PyTuple_New(3)) |tuple| {
            // They become the tuple's, also where it fails.
            _ = py.PyTuple_SetItem(tuple, 0, singles.?);
            _ = py.PyTuple_SetItem(tuple, 1, data.?);
            _ = py.PyTuple_SetItem(tuple, 2, objects.?);
            return tuple;
        }
    }
    py.xdecref(singles);
    py.xdecref(objects);
    py.xdecref(data);
    return null;
}

fn bytesFor(taken: []const event.Event, wanted: Wanted) ?*py.Object {
    var count: usize = 0;
    for (taken) |*e| count += @intFromBool(wanted.isBatched(e));
    return py.PyBytes_FromStringAndSize(null, @intCast(count * @sizeOf(event.Event)));
}

/// Where they are to be written. Bytes begin at a multiple of 8 at most.
fn records(data: *py.Object) [*]align(1) event.Event {
    return @ptrCast(py.PyBytes_AsString(data).?);
}

fn fill(
    taken: []const event.Event,
    wanted: Wanted,
    singles: *py.Object,
    objects: *py.Object,
    data: [*]align(1) event.Event,
) bool {
    if (areAll(taken, wanted)) {
        @memcpy(data[0..taken.len], taken);
        return true;
    }
    var n: usize = 0;
    for (taken) |*e| {
        const object = if (hasObject(e.kind)) objectOf(e) orelse return false else null;
        defer py.xdecref(object);
        if (wanted.isBatched(e)) {
            data[n] = e.*;
            if (object) |o| {
                data[n].b = @intCast(py.PyList_Size(objects));
                if (py.PyList_Append(objects, o) != 0) return false;
            }
            n += 1;
        }
        if (!wanted.isSingle(e)) continue;
        const tuple = tupleOf(e, object) orelse return false;
        defer py.decref(tuple);
        if (py.PyList_Append(singles, tuple) != 0) return false;
    }
    return true;
}

/// Whether they are what the bytes have: so it is where only `trace` wants events.
fn areAll(taken: []const event.Event, wanted: Wanted) bool {
    var kinds: u32 = 0;
    for (taken) |*e| kinds |= e.kind.bit();
    return kinds & ~wanted.batched == 0 and kinds & (wanted.single | with_object) == 0;
}

const with_object = bits: {
    var all: u32 = 0;
    for (std.enums.values(event.Kind)) |kind| {
        if (hasObject(kind)) all |= kind.bit();
    }
    break :bits all;
};

fn hasObject(kind: event.Kind) bool {
    return switch (kind) {
        .goroutine_panic, .tune, .goroutine_block => true,
        else => false,
    };
}

/// What is kept of it beside the rings. It is there once.
fn objectOf(e: *const event.Event) ?*py.Object {
    return switch (e.kind) {
        .goroutine_panic => takePanic(e.goroutine),
        .tune => takeTuning(e.a),
        .goroutine_block => places.take(e.b),
        else => unreachable,
    };
}

fn tupleOf(e: *const event.Event, object: ?*py.Object) ?*py.Object {
    const tuple = py.PyTuple_New(6) orelse return null;
    const items = [_]?*py.Object{
        number(@backingInt(e.kind)),
        number(e.time),
        number(e.goroutine),
        number(e.a),
        if (object) |o|
            py.incref(o)
        else if (e.kind == .goroutine_park)
            reasonText(e.b)
        else
            number(e.b),
        number(@backingInt(e.origin)),
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

/// wait_reasons()
pub fn waitReasons() ?*py.Object {
    const codes = std.enums.values(g_mod.WaitReason);
    const tuple = py.PyTuple_New(codes.len) orelse return null;
    for (codes, 0..) |_, code| {
        const text = reasonText(@intCast(code)) orelse {
            py.decref(tuple);
            return null;
        };
        _ = py.PyTuple_SetItem(tuple, @intCast(code), text);
    }
    return tuple;
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
