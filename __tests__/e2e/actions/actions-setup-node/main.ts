console.log(`Node ${process.version} is already installed.`);
