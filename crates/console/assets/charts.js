// The overview's charts, fed by an event stream while the page is open and shown.
"use strict";
