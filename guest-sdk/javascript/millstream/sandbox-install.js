// Imported before the plugin's modules, so that what they keep of the globals is what refuses later.

import { install } from './sandbox.js';

install();
