//! A goroutine's Python frames, read without the interpreter's lock: for dumps of a process with an
//! interpreter that is stuck with the lock held.
//!
//! Nothing keeps what is read from changing meanwhile, or from going away. So memory is copied by a
//! system call that fails where there is none (os.peek), each pointer is checked as far as it can
//! be, and what makes no sense is left out: a line may be wrong, but nothing crashes. Where an
//! interpreter keeps what is found out by experiment, in `calibrate`, as in host.zig: a field is
//! where the value lies that the API gives for it. The exception is PyFrameObject.f_frame, which is
//! checked.
const std = @import("std");
const os = @import("../../os/os.zig");
const py = @import("../py.zig");

pub const Layout = struct {
    /// PyThreadState: the current frame, or in 3.11 and 3.12 a structure that has it at `indirect`.
    state_frame: usize = 0,
    indirect: ?usize = null,
    frame_code: usize = 0,
    frame_previous: usize = 0,
    /// The instruction that runs.
    frame_instruction: usize = 0,
    code_start: usize = 0,
    code_file: usize = 0,
    code_name: usize = 0,
    code_line: usize = 0,
    code_table: usize = 0,
    text_data: usize = 0,
    bytes_data: usize = 0,
    code_type: usize = 0,
    frame_type: usize = 0,
};

pub var layout: ?Layout = null;
var calibrated = false;

/// PyFrameObject: after the header f_back, then f_frame.
pub const frame_object_frame = 24;
/// PyVarObject's and PyUnicodeObject's length.
const object_size = 16;
const most_words = 48;

pub fn word(address: usize) ?usize {
    var value: usize = undefined;
    return if (os.peek(address, std.mem.asBytes(&value))) value else null;
}

/// The offset of the word that holds `value`, of those at `address`.
fn find(address: usize, value: usize) ?usize {
    for (0..most_words) |i| {
        if ((word(address +% i * 8) orelse return null) == value) return i * 8;
    }
    return null;
}

// ---- finding out ----

/// With the lock, called from Python code. Without success, dumps have no frames.
pub fn calibrate() void {
    if (calibrated) return;
    calibrated = true;
    const state = py.PyThreadState_Get();
    const frame = py.PyThreadState_GetFrame(state) orelse return;
    defer py.decref(&frame.ob);
    layout = measure(state, frame);
    py.PyErr_Clear();
}

fn interpreterFrame(frame: *py.Frame) ?usize {
    const address = word(@intFromPtr(frame) + frame_object_frame) orelse return null;
    // It knows its frame object.
    return if (find(address, @intFromPtr(frame)) != null) address else null;
}

fn measure(state: *py.ThreadState, frame: *py.Frame) ?Layout {
    var l: Layout = .{};
    const address = interpreterFrame(frame) orelse return null;
    if (find(@intFromPtr(state), address)) |offset| {
        l.state_frame = offset;
    } else for (0..most_words) |i| {
        const inner = word(@intFromPtr(state) + i * 8) orelse return null;
        for ([_]usize{ 0, 8 }) |offset| {
            if ((word(inner +% offset) orelse 0) != address) continue;
            l.state_frame = i * 8;
            l.indirect = offset;
            break;
        }
        if (l.indirect != null) break;
    } else return null;
    const code = py.PyFrame_GetCode(frame);
    defer py.decref(code);
    l.frame_code = find(address, @intFromPtr(code)) orelse return null;
    l.code_type = @intFromPtr(code.type);
    l.frame_type = @intFromPtr(frame.ob.type);
    l.frame_previous = previousOffset(frame) orelse return null;
    return if (measureCode(&l, frame, address, code)) l else null;
}

/// By the first pair of frames with nothing in between.
fn previousOffset(top: *py.Frame) ?usize {
    var frame = top;
    _ = py.incref(&frame.ob);
    defer py.decref(&frame.ob);
    while (py.extra.PyFrame_GetBack(frame)) |back| {
        const address = interpreterFrame(frame) orelse 0;
        const back_address = interpreterFrame(back) orelse 0;
        py.decref(&frame.ob);
        frame = back;
        if (address == 0 or back_address == 0) return null;
        if (find(address, back_address)) |offset| return offset;
    }
    return null;
}

fn measureCode(l: *Layout, frame: *py.Frame, address: usize, code: *py.Object) bool {
    const at = @intFromPtr(code);
    const lasti: usize = @intCast(py.extra.PyFrame_GetLasti(frame));
    for (0..16) |i| {
        const value = word(address +% i * 8) orelse return false;
        if (value <= at + 64 or value -% at > 1 << 20 or value < lasti + at) continue;
        l.frame_instruction = i * 8;
        l.code_start = value - lasti - at;
        break;
    } else return false;
    l.code_file = fieldOf(code, "co_filename") orelse return false;
    l.code_name = fieldOf(code, "co_qualname") orelse return false;
    l.code_table = fieldOf(code, "co_linetable") orelse return false;
    const text = py.PyUnicode_FromString("golibx") orelse return false;
    defer py.decref(text);
    var length: py.Ssize = 0;
    const characters = py.PyUnicode_AsUTF8AndSize(text, &length) orelse return false;
    l.text_data = @intFromPtr(characters) - @intFromPtr(text);
    const bytes = py.PyBytes_FromStringAndSize("golibx", 6) orelse return false;
    defer py.decref(bytes);
    l.bytes_data = @intFromPtr(py.PyBytes_AsString(bytes).?) - @intFromPtr(bytes);
    l.code_line = lineOffset(code) orelse return false;
    return true;
}

fn fieldOf(code: *py.Object, name: [*:0]const u8) ?usize {
    const value = py.PyObject_GetAttrString(code, name) orelse return null;
    defer py.decref(value);
    return find(@intFromPtr(code), @intFromPtr(value));
}

/// The number of the first line, by a copy of the code that says it begins at a line like no other.
fn lineOffset(code: *py.Object) ?usize {
    const line = 0x0bcde135;
    const replace = py.PyObject_GetAttrString(code, "replace") orelse return null;
    defer py.decref(replace);
    const kwargs = py.PyDict_New() orelse return null;
    defer py.decref(kwargs);
    if (!py.setInt(kwargs, "co_firstlineno", line)) return null;
    const empty = py.PyTuple_New(0) orelse return null;
    defer py.decref(empty);
    const copy = py.PyObject_Call(replace, empty, kwargs) orelse return null;
    defer py.decref(copy);
    for (0..most_words * 2) |i| {
        var value: u32 = undefined;
        if (!os.peek(@intFromPtr(copy) + i * 4, std.mem.asBytes(&value))) return null;
        if (value == line) return i * 4;
    }
    return null;
}

// ---- reading ----

pub const Place = struct {
    name: Text = .{},
    file: Text = .{},
    line: i64 = 0,
};

pub const Text = struct {
    bytes: [256]u8 = undefined,
    len: usize = 0,

    pub fn slice(t: *const Text) []const u8 {
        return if (t.len == 0) "?" else t.bytes[0..t.len];
    }
};

pub const Frames = struct {
    at: usize,
    left: u32 = 100,

    pub fn of(state: usize) Frames {
        const l = layout orelse return .{ .at = 0 };
        var at = word(state +% l.state_frame) orelse 0;
        if (l.indirect) |offset| at = word(at +% offset) orelse 0;
        return .{ .at = at };
    }

    /// Innermost first.
    pub fn next(f: *Frames) ?Place {
        const l = layout orelse return null;
        while (f.left > 0 and f.at != 0) {
            f.left -= 1;
            const frame = f.at;
            f.at = word(frame +% l.frame_previous) orelse 0;
            const code = word(frame +% l.frame_code) orelse return null;
            const instruction = word(frame +% l.frame_instruction) orelse return null;
            // What C code puts between frames of Python has other code, or none.
            return placeOf(code, instruction -% code -% l.code_start) orelse continue;
        }
        return null;
    }
};

/// Where the instruction `lasti` of a code object is.
pub fn placeOf(code: usize, lasti: usize) ?Place {
    const l = layout orelse return null;
    if ((word(code +% 8) orelse return null) != l.code_type) return null;
    var place: Place = .{};
    place.file = textAt(word(code +% l.code_file) orelse return null);
    if (std.mem.eql(u8, place.file.slice(), "<shim>")) return null;
    place.name = textAt(word(code +% l.code_name) orelse return null);
    var first: i32 = undefined;
    if (!os.peek(code +% l.code_line, std.mem.asBytes(&first))) return null;
    place.line = first + lineDelta(word(code +% l.code_table) orelse return null, lasti);
    return place;
}

/// The name of an object's type, tp_name: after the header of a variable-sized object.
pub fn typeName(object: usize) Text {
    var t: Text = .{};
    const address = word((word(object +% 8) orelse return t) +% 24) orelse return t;
    while (t.len < 64 and os.peek(address +% t.len, t.bytes[t.len..][0..1])) : (t.len += 1) {
        const byte = t.bytes[t.len];
        if (byte < ' ' or byte > '~') break;
    }
    return t;
}

/// ASCII only; longer texts end early.
fn textAt(address: usize) Text {
    const l = layout.?;
    var t: Text = .{};
    const length = word(address +% object_size) orelse return t;
    const n = @min(length, t.bytes.len);
    if (!os.peek(address +% l.text_data, t.bytes[0..n])) return t;
    for (t.bytes[0..n]) |byte| if (byte < ' ' or byte > '~') return t;
    t.len = n;
    return t;
}

/// How many lines after the first one: the format of CPython's Objects/locations.md.
fn lineDelta(table: usize, lasti: usize) i64 {
    var bytes: [16 * 1024]u8 = undefined;
    const length = word(table +% object_size) orelse return 0;
    const n = @min(length, bytes.len);
    if (!os.peek(table +% layout.?.bytes_data, bytes[0..n])) return 0;
    return deltaIn(bytes[0..n], lasti);
}

fn deltaIn(table: []const u8, lasti: usize) i64 {
    var line: i64 = 0;
    var end: usize = 0;
    var i: usize = 0;
    while (i < table.len) {
        const head = table[i];
        const code = head >> 3 & 15;
        end += (@as(usize, head & 7) + 1) * 2;
        i += 1;
        line += switch (code) {
            13, 14 => signed(table[i..]),
            10, 11, 12 => code - 10,
            else => 0,
        };
        if (lasti < end) return line;
        // Only the first byte of an entry has the highest bit set.
        while (i < table.len and table[i] & 0x80 == 0) i += 1;
    }
    return line;
}

fn signed(bytes: []const u8) i64 {
    var value: u63 = 0;
    for (bytes[0..@min(bytes.len, 6)], 0..) |byte, i| {
        value |= @as(u63, byte & 63) << @intCast(6 * i);
        if (byte & 64 == 0) break;
    }
    const half: i64 = value >> 1;
    return if (value & 1 != 0) -half else half;
}

test "line tables" {
    // Two units at line 0; one two lines down (short form needs none); one 3 lines up.
    const table =
        [_]u8{ 0x80 | 0 << 3 | 1, 0, 0x80 | 12 << 3 | 0, 1, 1, 0x80 | 13 << 3 | 0, 3 << 1 | 1 };
    try std.testing.expectEqual(0, deltaIn(&table, 0));
    try std.testing.expectEqual(0, deltaIn(&table, 2));
    try std.testing.expectEqual(2, deltaIn(&table, 4));
    try std.testing.expectEqual(-1, deltaIn(&table, 6));
}
